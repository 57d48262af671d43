//! The datagrams that are sent.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::{SENDER, baseline};

/// What is sent, over and over.
pub(crate) struct Load {
    pub(crate) names: u32,
    /// Equal datagrams that one call sends.
    pub(crate) segment: usize,
    calls: Vec<Vec<u8>>,
    metrics: Vec<u64>,
}

impl Load {
    /// One shuffled pass over all names (several, if they are few) in datagrams of up to `limit`
    /// bytes, or one line each, `together` of them a call.
    pub(crate) fn new(names: u32, limit: usize, together: usize) -> Self {
        let mut state = 1_u64;
        let mut random = |bound: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let rounds = (20_000 / names).max(1);
        let mut order: Vec<u32> = (0..rounds).flat_map(|_| 0..names).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random(at as u64 + 1) as usize);
        }
        let mut datagrams: Vec<(Vec<u8>, u64)> = Vec::new();
        for name in order {
            let line = match name.wrapping_mul(0x9e37_79b9) >> 16 {
                n if n % 10 < 7 => format!("{}:1|c", path(name)),
                n if n % 10 < 9 => format!("{}:{}|ms", path(name), random(2_000)),
                _ => format!("{}:{}|g", path(name), random(1_000_000)),
            };
            match datagrams.last_mut() {
                Some((packet, metrics)) if packet.len() + 1 + line.len() <= limit => {
                    packet.push(b'\n');
                    packet.extend_from_slice(line.as_bytes());
                    *metrics += 1;
                }
                _ => datagrams.push((line.into_bytes(), 1)),
            }
        }
        let segment = datagrams.iter().map(|(packet, _)| packet.len()).max();
        let segment = segment.unwrap_or(1);
        let (mut calls, mut metrics) = (Vec::new(), Vec::new());
        for group in datagrams.chunks(together) {
            let mut call = Vec::with_capacity(segment * together);
            for (packet, _) in group {
                call.extend_from_slice(packet);
                call.resize(call.len().next_multiple_of(segment), b'\n');
            }
            calls.push(call);
            metrics.push(group.iter().map(|(_, metrics)| metrics).sum());
        }
        Self {
            names,
            segment,
            calls,
            metrics,
        }
    }

    pub(crate) fn metrics(&self) -> u64 {
        self.metrics.iter().sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.calls.iter().map(Vec::len).sum()
    }

    /// Sends at `rate` metrics a second (0: flat out) until `most` metrics or for `time`; returns how many.
    pub(crate) fn send(&self, address: SocketAddr, rate: f64, most: u64, time: Duration) -> u64 {
        baseline::stay_on(SENDER);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        if self.calls[0].len() > self.segment {
            baseline::segment(&socket, self.segment);
        }
        let start = Instant::now();
        let mut sent = 0;
        loop {
            for (call, metrics) in self.calls.iter().zip(&self.metrics) {
                if rate > 0.0 {
                    let due = Duration::from_secs_f64(sent as f64 / rate);
                    while start.elapsed() < due {
                        std::hint::spin_loop();
                    }
                }
                socket.send(call).unwrap();
                sent += metrics;
                if sent >= most || (sent % 16 == 0 || rate > 0.0) && start.elapsed() > time {
                    return sent;
                }
            }
        }
    }

    /// One pass, slowly enough that nothing is lost.
    pub(crate) fn send_once(&self, address: SocketAddr) {
        self.send(address, 4e5, self.metrics(), Duration::MAX);
    }
}

pub(crate) fn path(name: u32) -> String {
    let (host, service, endpoint) = (name % 1_000, name / 1_000 % 40, name / 40_000);
    format!("prod.web.host{host:04}.svc{service:02}.ep{endpoint:03}.requests")
}
