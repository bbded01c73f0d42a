//! The peers whose word counts: networks, and local sockets.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::proxied::Peer;

/// The name of local sockets in lists.
const LOCAL: &str = "unix";

/// Peers that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    networks: Vec<IpNet>,
    local: bool,
}

impl Networks {
    /// Adds an address, a network, or "unix" for local sockets.
    ///
    /// # Errors
    /// What is wrong with the text, as the rest of a sentence that begins with it.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        if text == LOCAL {
            self.local = true;
            return Ok(());
        }
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map_err(|_| {
            "is not a network such as \"10.0.0.0/8\", an address or \"unix\"".to_owned()
        })?;
        // One machine may have been meant.
        if network.trunc() != network {
            let (prefix, whole) = (network.prefix_len(), network.trunc());
            return Err(format!("has more than {prefix} bits; the network would be \"{whole}\""));
        }
        self.networks.push(unmapped(network));
        Ok(())
    }

    /// Whether the peer is one of them.
    pub fn contain(&self, peer: Peer) -> bool {
        match peer {
            Peer::Internet(ip, _) => {
                let ip = ip.to_canonical();
                self.networks.iter().any(|network| network.contains(&ip))
            }
            Peer::Local => self.local,
        }
    }
}

/// A network of IPv4 addresses that are mapped to IPv6 (RFC 4291, 2.5.5.2), as one of IPv4.
fn unmapped(network: IpNet) -> IpNet {
    let mapped = network.addr().to_canonical();
    match (network, mapped) {
        (IpNet::V6(long), IpAddr::V4(ip)) if long.prefix_len() >= 96 => {
            Ipv4Net::new(ip, long.prefix_len() - 96).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        let mut networks = Networks::default();
        texts.iter().for_each(|text| networks.add(text).unwrap());
        networks
    }

    fn peer(ip: &str) -> Peer {
        Peer::Internet(ip.parse().unwrap(), 1)
    }

    #[test]
    fn peers_are_compared_with_each_network() {
        let some = networks(&["10.0.0.0/8", "192.0.2.7", "::1", "2001:db8::/32", "unix"]);
        for ip in ["10.255.0.1", "192.0.2.7", "::1", "2001:db8:1::", "::ffff:10.0.0.1"] {
            assert!(some.contain(peer(ip)), "{ip}");
        }
        for ip in ["11.0.0.1", "192.0.2.8", "::2", "2001:db9::", "::ffff:11.0.0.1", "127.0.0.1"] {
            assert!(!some.contain(peer(ip)), "{ip}");
        }
        assert!(
            some.contain(Peer::Local) && !networks(&["0.0.0.0/0", "::/0"]).contain(Peer::Local)
        );
    }

    #[test]
    fn mapped_networks_are_those_of_ipv4() {
        let some = networks(&["::ffff:10.0.0.0/104", "::ffff:192.0.2.7"]);
        assert!(some.contain(peer("10.1.2.3")) && some.contain(peer("::ffff:192.0.2.7")));
        assert!(!some.contain(peer("11.1.2.3")));
        assert!(!networks(&["::/0"]).contain(peer("10.1.2.3")));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "localhost", "10.0.0.0/33", "10.0.0/8", "fe80::1%eth0", "Unix", "::/129"] {
            assert!(Networks::default().add(text).unwrap_err().contains("is not a network"));
        }
        let error = Networks::default().add("10.0.0.7/8").unwrap_err();
        assert!(error.contains("10.0.0.0/8"), "{error}");
    }
}
