//! Holds: which IP addresses are somebody's place on the public internet.
//!
//! From IANA's special-purpose registries. Whatever leads to an IPv4 address through an IPv6 one (mapped, compatible,
//! 6to4, Teredo, NAT64) is refused whole: where it leads is for the network to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

const fn v6(a: u16, b: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

const DENIED_V4: [Ipv4Net; 17] = [
    // "This network", private, carrier-grade NAT, loopback, link-local.
    v4(0, 0, 0, 8),
    v4(10, 0, 0, 8),
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    v4(169, 254, 0, 16),
    v4(172, 16, 0, 12),
    v4(192, 168, 0, 16),
    // Protocol assignments, AMT and 6to4 relays, AS112.
    v4(192, 0, 0, 24),
    v4(192, 52, 193, 24),
    v4(192, 88, 99, 24),
    v4(192, 31, 196, 24),
    v4(192, 175, 48, 24),
    // Documentation and benchmarks.
    v4(192, 0, 2, 24),
    v4(198, 18, 0, 15),
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    // Multicast, reserved and broadcast.
    v4(224, 0, 0, 3),
];

/// All that has been given out to the public internet lies in here: loopback, unique local, link-local, site-local,
/// multicast, IPv4-mapped and -compatible and both NAT64 prefixes lie outside.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);

const DENIED_V6: [Ipv6Net; 5] = [
    // Protocol assignments: Teredo, benchmarks, ORCHID.
    v6(0x2001, 0, 23),
    // Documentation.
    v6(0x2001, 0xdb8, 32),
    v6(0x3fff, 0, 20),
    // 6to4.
    v6(0x2002, 0, 16),
    // AS112.
    v6(0x2620, 0x4f, 32),
];

/// Whether an address is a place on the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !DENIED_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => GLOBAL_V6.contains(&address) && !DENIED_V6.iter().any(|net| net.contains(&address)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn every_denied_range_is_denied_to_its_ends() {
        for (first, last) in [
            ("0.0.0.0", "0.255.255.255"),
            ("10.0.0.0", "10.255.255.255"),
            ("100.64.0.0", "100.127.255.255"),
            ("127.0.0.0", "127.255.255.255"),
            ("169.254.0.0", "169.254.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.0.0.0", "192.0.0.255"),
            ("192.0.2.0", "192.0.2.255"),
            ("192.88.99.0", "192.88.99.255"),
            ("192.168.0.0", "192.168.255.255"),
            ("198.18.0.0", "198.19.255.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            ("224.0.0.0", "239.255.255.255"),
            ("240.0.0.0", "255.255.255.255"),
            ("::", "::1"),
            ("::7f00:1", "::ffff:ffff"),
            ("::ffff:0.0.0.0", "::ffff:255.255.255.255"),
            ("64:ff9b::", "64:ff9b::ffff:ffff"),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
            ("100::", "100::ffff:ffff:ffff:ffff"),
            ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff"),
            ("2001:10::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert!(!public(first), "{first}");
            assert!(!public(last), "{last}");
        }
    }

    #[test]
    fn their_neighbours_are_public() {
        for text in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00::1",
            "3ffe:ffff::",
        ] {
            assert!(public(text), "{text}");
        }
    }

    proptest! {
        /// No way of writing an IPv4 address into an IPv6 one gets past.
        #[test]
        fn no_ipv6_address_carries_an_ipv4_one(octets: [u8; 4], rest: u64) {
            let v4 = u128::from(u32::from_be_bytes(octets));
            let forms = [
                v4,
                0xffff << 32 | v4,
                0x0064_ff9b << 96 | v4,
                0x0064_ff9b_0001 << 80 | v4,
                0x2002 << 112 | v4 << 80 | u128::from(rest),
                0x2001_0000 << 96 | u128::from(rest) << 32 | v4,
            ];
            for form in forms {
                let address = IpAddr::V6(Ipv6Addr::from(form));
                prop_assert!(!is_public(address), "{}", address);
            }
        }

        /// The standard library's own names for ranges agree, as far as it has them.
        #[test]
        fn what_the_standard_library_calls_special_is_denied(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let special = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_broadcast() || address.is_documentation() || address.is_multicast()
                || address.is_unspecified();
            prop_assert!(!(special && is_public(IpAddr::V4(address))), "{}", address);
        }
    }
}
