//! The ring of StatsD's proxy: npm `hashring` 3.2.0 with MD5, 40 places for a node and no replicas.

use md5::{Digest, Md5};

/// Places of a node.
const PLACES: f64 = 40.0;
/// The weight of every node.
const WEIGHT: f64 = 100.0;

/// Nodes that are there, by their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ring(Vec<(u32, usize)>);

impl Ring {
    /// The ring of `nodes`: a number and `host:port` each.
    pub(super) fn new<'n>(nodes: impl Iterator<Item = (usize, &'n str)> + Clone) -> Self {
        let count = nodes.clone().count() as f64;
        let total = WEIGHT * count;
        // In this order, so that the rounding is the same.
        let length = ((WEIGHT / total) * PLACES * count).floor() as usize;
        let places = nodes.flat_map(|(number, name)| {
            (0..length).map(move |place| (hash(format!("{name}-{place}").as_bytes()), number))
        });
        let mut places: Vec<_> = places.collect();
        places.sort_by_key(|(place, _)| *place);
        Self(places)
    }

    /// The node for a name; `None`: no node is there.
    pub(super) fn node(&self, name: &[u8]) -> Option<usize> {
        let hash = hash(name);
        let next = self.0.partition_point(|(place, _)| *place < hash);
        let (_, node) = self.0.get(next).or(self.0.first())?;
        Some(*node)
    }
}

/// The first four bytes of the MD5, the last one first.
fn hash(key: &[u8]) -> u32 {
    let digest = Md5::digest(key);
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// What npm hashring 3.2.0 answers for rings as StatsD 0.9.0's proxy makes them, nodes that went and
    /// came back included.
    #[test]
    fn golden_statsd_proxy_ring() {
        let packed = include_bytes!("../../../tests/golden/statsd-proxy.json.gz");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[..])
            .read_to_string(&mut text)
            .unwrap();
        let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names = recorded["names"].as_array().unwrap();
        for case in recorded["out"].as_array().unwrap() {
            let mut nodes: Vec<(usize, &str)> = Vec::new();
            let all = case["nodes"].as_array().unwrap();
            for node in all {
                nodes.push((nodes.len(), node.as_str().unwrap()));
            }
            // Numbers are those of all nodes.
            let removed = case["removed"].as_str();
            let place = |number: usize| number + usize::from(removed.is_some() && number >= 1);
            let nodes = nodes.iter().map(|(number, name)| (place(*number), *name));
            let ring = Ring::new(nodes);
            for (name, expected) in names.iter().zip(case["to"].as_array().unwrap()) {
                let got = ring.node(name.as_str().unwrap().as_bytes());
                assert_eq!(
                    got.unwrap() as u64,
                    expected.as_u64().unwrap(),
                    "{name} of {all:?}"
                );
            }
        }
        assert_eq!(Ring::default().node(b"a"), None);
    }
}
