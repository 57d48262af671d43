//! The addresses of the server's host, which are not looked up for every request.
//!
//! Every request has a deadline, and the client looks names up on a thread of its own then: for each query one more thread
//! to start and to wait for, also if the host is an address and the connection there already.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long a name that was looked up is not looked up again.
const KEPT: Duration = Duration::from_secs(10);
const HTTP: u16 = 80;

/// Looks up the host of one server.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    system: DefaultResolver,
    known: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl Resolver for Addresses {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        if let Some(address) = literal(uri) {
            addresses.push(address);
            return Ok(addresses);
        }
        if let Some((at, known)) = &*self.known.lock()
            && at.elapsed() < KEPT
        {
            known.iter().for_each(|address| addresses.push(*address));
            return Ok(addresses);
        }
        let found = self.system.resolve(uri, config, timeout)?;
        *self.known.lock() = Some((Instant::now(), found.to_vec()));
        Ok(found)
    }
}

/// The address that `uri` has in the place of a name.
fn literal(uri: &Uri) -> Option<SocketAddr> {
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(address, uri.port_u16().unwrap_or(HTTP)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_not_looked_up() {
        let address = |uri: &str| literal(&uri.parse().unwrap()).map(|found| found.to_string());
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(address("http://127.0.0.1:8123/"), is("127.0.0.1:8123"));
        assert_eq!(address("http://127.0.0.1/"), is("127.0.0.1:80"));
        assert_eq!(address("http://[::1]:8123/"), is("[::1]:8123"));
        assert_eq!(address("http://localhost:8123/"), None);
    }
}
