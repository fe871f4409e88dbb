//! Socket addresses between C's bytes and Rust's types.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::errno::Errno;

/// The family of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`; with IPv4-mapped addresses for IPv4 peers.
    V6,
}

/// An address that a program hands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Given {
    /// `AF_UNSPEC`: to `connect`, it undoes a connection.
    Unspecified,
    /// An address and port, IPv4-mapped ones as IPv4.
    Socket(SocketAddr),
}

/// Reads the bytes of a `sockaddr` for a socket of `family`.
///
/// # Errors
/// `EINVAL` if it is too short, `EAFNOSUPPORT` if it is of another family.
pub fn read(bytes: &[u8], family: Family) -> Result<Given, Errno> {
    let word = |at: usize| bytes.get(at..at + 2).map(|b| [b[0], b[1]]).ok_or(Errno(libc::EINVAL));
    let family_given = i32::from(u16::from_ne_bytes(word(0)?));
    if family_given == libc::AF_UNSPEC {
        return Ok(Given::Unspecified);
    }
    let port = u16::from_be_bytes(word(2)?);
    let socket = match (family_given, family) {
        (libc::AF_INET, Family::V4) => {
            let ip: [u8; 4] = field(bytes, 4)?;
            // The zeros behind the address are part of the type.
            let _: [u8; 8] = field(bytes, 8)?;
            SocketAddr::V4(SocketAddrV4::new(ip.into(), port))
        }
        (libc::AF_INET6, Family::V6) => {
            let ip: [u8; 16] = field(bytes, 8)?;
            SocketAddr::new(IpAddr::from(ip).to_canonical(), port)
        }
        _ => return Err(Errno(libc::EAFNOSUPPORT)),
    };
    Ok(Given::Socket(socket))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Errno> {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).ok_or(Errno(libc::EINVAL))
}

/// The bytes of a `sockaddr_in` or `sockaddr_in6`, whichever a socket of `family` has.
pub fn write(address: SocketAddr, family: Family) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    let mut head = |family: i32| {
        bytes.extend((family as u16).to_ne_bytes());
        bytes.extend(address.port().to_be_bytes());
    };
    match (family, address) {
        (Family::V4, SocketAddr::V4(v4)) => {
            head(libc::AF_INET);
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        (_, address) => {
            head(libc::AF_INET6);
            let (v6, scope) = match address {
                SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
                SocketAddr::V6(v6) => (*v6.ip(), SocketAddrV6::scope_id(&v6)),
            };
            bytes.extend([0; 4]);
            bytes.extend(v6.octets());
            bytes.extend(scope.to_ne_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (text, family, length) in [
            ("192.0.2.1:80", Family::V4, size_of::<libc::sockaddr_in>()),
            ("192.0.2.1:80", Family::V6, size_of::<libc::sockaddr_in6>()),
            ("[2001:db8::1]:443", Family::V6, size_of::<libc::sockaddr_in6>()),
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let bytes = write(address, family);
            assert_eq!(bytes.len(), length);
            assert_eq!(read(&bytes, family), Ok(Given::Socket(address)));
            for short in 0..bytes.len().min(24) {
                assert_ne!(read(&bytes[..short], family), Ok(Given::Socket(address)), "{short}");
            }
        }
    }

    #[test]
    fn families_do_not_mix() {
        let v4 = write("192.0.2.1:80".parse().unwrap(), Family::V4);
        assert_eq!(read(&v4, Family::V6), Err(Errno(libc::EAFNOSUPPORT)));
        assert_eq!(read(&[0; 16], Family::V4), Ok(Given::Unspecified));
    }
}
