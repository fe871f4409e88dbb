//! Fixed layouts: fields one after the other, little-endian, each struct padded to eight bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An Ethernet address; eight bytes in a message, the last two zero.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether the group bit is set: broadcast or multicast.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// An IP address and a TCP port: 24 bytes in a message, an IPv4 address as its IPv4-mapped IPv6 one (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Endpoint {
    /// The address. The unspecified address of a family stands for "any of this family" in [`crate::Listen`].
    pub ip: IpAddr,
    /// The port, in host order.
    pub port: u16,
}

impl Endpoint {
    /// An endpoint from its parts.
    pub const fn new(ip: IpAddr, port: u16) -> Self {
        Self { ip, port }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(a: SocketAddr) -> Self {
        Self { ip: a.ip().to_canonical(), port: a.port() }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(e: Endpoint) -> Self {
        SocketAddr::new(e.ip, e.port)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

/// A value with one place and one size in a fixed layout.
pub(crate) trait Field: Sized {
    const BYTES: usize;
    /// `b` has exactly `BYTES` bytes.
    fn get(b: &[u8]) -> Self;
    /// `b` has exactly `BYTES` bytes, all zero.
    fn put(&self, b: &mut [u8]);
}

macro_rules! integer_field {
    ($($t:ty),*) => {$(
        impl Field for $t {
            const BYTES: usize = size_of::<$t>();
            fn get(b: &[u8]) -> Self {
                let mut bytes = [0; size_of::<$t>()];
                bytes.copy_from_slice(b);
                <$t>::from_le_bytes(bytes)
            }
            fn put(&self, b: &mut [u8]) {
                b.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
integer_field!(u8, u16, u32, u64, u128);

impl Field for Mac {
    const BYTES: usize = 8;
    fn get(b: &[u8]) -> Self {
        Mac([b[0], b[1], b[2], b[3], b[4], b[5]])
    }
    fn put(&self, b: &mut [u8]) {
        b[..6].copy_from_slice(&self.0);
    }
}

impl Field for IpAddr {
    const BYTES: usize = 16;
    fn get(b: &[u8]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(b);
        match bytes {
            // Both unspecified addresses must be sayable: ::ffff:0.0.0.0 is IPv4's.
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Ipv4Addr::new(a, b, c, d).into(),
            _ => Ipv6Addr::from(bytes).into(),
        }
    }
    fn put(&self, b: &mut [u8]) {
        let v6 = match self {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => *v6,
        };
        b.copy_from_slice(&v6.octets());
    }
}

impl Field for Endpoint {
    const BYTES: usize = 24;
    fn get(b: &[u8]) -> Self {
        Self { ip: IpAddr::get(&b[..16]), port: u16::get(&b[16..18]) }
    }
    fn put(&self, b: &mut [u8]) {
        self.ip.put(&mut b[..16]);
        self.port.put(&mut b[16..18]);
    }
}

/// A struct of fields; see `layout!`.
pub(crate) trait Layout: Sized {
    /// Bytes of the fixed part, a multiple of eight.
    const BYTES: usize;
    /// `b` has at least `BYTES` bytes.
    fn get(b: &[u8]) -> Self;
    /// `b` has at least `BYTES` bytes, all zero.
    fn put(&self, b: &mut [u8]);
}

/// Rounds up to the eight bytes on which every message stands.
pub(crate) const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// Defines a struct and its layout from one list of fields, so that the two cannot part.
macro_rules! layout {
    ($(#[$meta:meta])* $name:ident { $( $(#[$field_meta:meta])* $field:ident : $ty:ty ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name { $( $(#[$field_meta])* pub $field: $ty, )* }

        impl $crate::codec::Layout for $name {
            const BYTES: usize =
                $crate::codec::padded(0 $( + <$ty as $crate::codec::Field>::BYTES )*);
            #[allow(unused_assignments)]
            fn get(b: &[u8]) -> Self {
                let mut at = 0;
                $(
                    let size = <$ty as $crate::codec::Field>::BYTES;
                    let $field = <$ty as $crate::codec::Field>::get(&b[at..at + size]);
                    at += size;
                )*
                Self { $($field),* }
            }
            #[allow(unused_assignments)]
            fn put(&self, b: &mut [u8]) {
                let Self { $($field),* } = self;
                let mut at = 0;
                $(
                    let size = <$ty as $crate::codec::Field>::BYTES;
                    $crate::codec::Field::put($field, &mut b[at..at + size]);
                    at += size;
                )*
            }
        }
    };
}
pub(crate) use layout;
