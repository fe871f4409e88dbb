//! The names that a script may use for numbers, and those of errors.

macro_rules! names {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name as i64)),*] };
}

/// Names of the C library's.
const NAMES: &[(&str, i64)] = names! {
    AF_INET AF_INET6 AF_UNSPEC PF_INET PF_INET6
    SOCK_STREAM SOCK_DGRAM SOCK_NONBLOCK SOCK_CLOEXEC
    IPPROTO_TCP IPPROTO_UDP IPPROTO_IP IPPROTO_IPV6
    SOL_SOCKET SOL_TCP SOL_IP SOL_IPV6
    SO_REUSEADDR SO_REUSEPORT SO_ERROR SO_SNDBUF SO_RCVBUF SO_LINGER SO_KEEPALIVE SO_OOBINLINE SO_RCVTIMEO SO_SNDTIMEO
    SO_RCVLOWAT SO_TYPE SO_PROTOCOL SO_DOMAIN SO_ACCEPTCONN SO_MARK SO_PRIORITY SO_ZEROCOPY SO_TIMESTAMPING
    SO_MAX_PACING_RATE SO_BUSY_POLL SO_RCVBUFFORCE SO_SNDBUFFORCE
    IP_TOS IP_MTU IP_MTU_DISCOVER IP_PMTUDISC_DO IP_PMTUDISC_DONT IP_PMTUDISC_WANT IP_RECVERR
    IPV6_V6ONLY IPV6_RECVERR IPV6_MTU IPV6_TCLASS
    TCP_NODELAY TCP_MAXSEG TCP_CORK TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_SYNCNT TCP_LINGER2 TCP_DEFER_ACCEPT
    TCP_WINDOW_CLAMP TCP_INFO TCP_QUICKACK TCP_CONGESTION TCP_USER_TIMEOUT TCP_FASTOPEN TCP_TIMESTAMP
    TCP_NOTSENT_LOWAT TCP_FASTOPEN_CONNECT TCP_ULP TCP_INQ
    MSG_DONTWAIT MSG_PEEK MSG_WAITALL MSG_TRUNC MSG_OOB MSG_NOSIGNAL MSG_MORE MSG_EOR MSG_ERRQUEUE MSG_FASTOPEN
    MSG_ZEROCOPY
    SHUT_RD SHUT_WR SHUT_RDWR
    F_GETFL F_SETFL F_GETFD F_SETFD O_RDWR O_NONBLOCK O_RDONLY O_WRONLY
    FIONREAD FIONBIO TIOCOUTQ TIOCINQ
    POLLIN POLLOUT POLLERR POLLHUP POLLPRI POLLRDHUP POLLNVAL POLLRDNORM POLLWRNORM POLLRDBAND
    EPOLLIN EPOLLOUT EPOLLERR EPOLLHUP EPOLLRDHUP EPOLLPRI EPOLLET EPOLLONESHOT
    EPOLL_CTL_ADD EPOLL_CTL_MOD EPOLL_CTL_DEL
    INADDR_ANY
};

/// Names that the C library does not have.
const MORE: &[(&str, i64)] = &[
    ("SIOCINQ", 0x541b),
    ("SIOCOUTQ", 0x5411),
    ("SIOCOUTQNSD", 0x894b),
    ("SIOCATMARK", 0x8905),
    ("EWOULDBLOCK", libc::EAGAIN as i64),
    ("ENOTSUP", libc::ENOTSUP as i64),
];

/// Errors that a system call on a socket can give.
const ERRORS: &[(&str, i64)] = names! {
    EPERM EINTR EIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EINVAL EMFILE EPIPE EDOM EDEADLK ENOTSOCK EDESTADDRREQ EMSGSIZE
    EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE
    EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN
    ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ENOENT EEXIST ENOTTY ENXIO EPROTO
};

fn find(among: &[(&str, i64)], name: &str) -> Option<i64> {
    among.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The number of a name, errors' included.
pub fn number(name: &str) -> Option<i64> {
    [NAMES, MORE, ERRORS].into_iter().find_map(|among| find(among, name))
}

/// The name of an error.
pub fn error(number: i32) -> String {
    let known = ERRORS.iter().find(|(_, n)| *n == i64::from(number)).map(|(name, _)| (*name).to_owned());
    known.unwrap_or_else(|| format!("error {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(number("EAGAIN"), Some(libc::EAGAIN.into()));
        assert_eq!(number("SO_REUSEADDR"), Some(libc::SO_REUSEADDR.into()));
        assert_eq!(number("SIOCINQ"), Some(libc::FIONREAD as i64));
        assert_eq!(number("SO_WHAT"), None);
        assert_eq!(error(libc::ECONNRESET), "ECONNRESET");
        assert_eq!(error(9999), "error 9999");
    }
}
