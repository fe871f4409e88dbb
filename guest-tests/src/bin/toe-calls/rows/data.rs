//! Calls that carry data, that wait, that end, and that copy descriptors.

use super::*;

pub const ROWS: &[Row] = &[
    ("recv: MSG_PEEK", |e| {
        let fd = to(e, b'E');
        send(&fd, b"abc", 0);
        format!("{} {}", recv(&fd, 3, libc::MSG_PEEK | libc::MSG_WAITALL), recv(&fd, 3, libc::MSG_WAITALL))
    }),
    ("recv: MSG_DONTWAIT without data", |e| recv(&to(e, b'E'), 1, libc::MSG_DONTWAIT)),
    ("recv: MSG_WAITALL", |e| {
        let fd = to(e, b'E');
        send(&fd, b"12345", 0);
        send(&fd, b"67890", 0);
        recv(&fd, 10, libc::MSG_WAITALL)
    }),
    ("recv: MSG_TRUNC drops", |e| {
        let fd = to(e, b'E');
        send(&fd, b"12345", 0);
        recv(&fd, 5, libc::MSG_PEEK | libc::MSG_WAITALL);
        // SAFETY: with MSG_TRUNC nothing is written.
        let n = unsafe { libc::recv(fd.0, null_mut(), 3, libc::MSG_TRUNC) };
        format!("{n} {}", recv(&fd, 5, 0))
    }),
    ("recv: SO_RCVTIMEO", |e| {
        let fd = to(e, b'E');
        format!("{} {}", receive_timeout(&fd, 50), recv(&fd, 1, 0))
    }),
    ("recv: interrupted", |e| {
        let fd = to(e, b'E');
        alarm();
        recv(&fd, 1, 0)
    }),
    ("recv: a fresh socket", |_| recv(&tcp(), 1, 0)),
    ("send: a fresh socket", |_| send(&tcp(), b"x", 0)),
    ("recv: FIONREAD", |e| {
        let fd = to(e, b'E');
        send(&fd, b"abc", 0);
        recv(&fd, 3, libc::MSG_PEEK | libc::MSG_WAITALL);
        let mut n = 0;
        // SAFETY: FIONREAD writes an int.
        unsafe { libc::ioctl(fd.0, libc::FIONREAD, &mut n) };
        n.to_string()
    }),
    ("readv and writev", |e| {
        let fd = to(e, b'E');
        let v = |b: &[u8]| libc::iovec { iov_base: b.as_ptr().cast_mut().cast(), iov_len: b.len() };
        // SAFETY: two buffers that live as long as the call.
        let n = unsafe { libc::writev(fd.0, [v(b"ab"), v(b"cd")].as_ptr(), 2) };
        format!("{n} {}", recv(&fd, 4, libc::MSG_WAITALL))
    }),
    ("sendfile", |e| {
        let fd = to(e, b'N');
        // SAFETY: constant paths, and no offset.
        let n = unsafe {
            let file = Fd(libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY));
            libc::sendfile(fd.0, file.0, null_mut(), 100_000)
        };
        format!("{n} {} {}", shutdown(&fd, libc::SHUT_WR), rest(&fd))
    }),
    ("splice", |e| {
        let fd = to(e, b'E');
        let mut ends = [0; 2];
        // SAFETY: two ints; no offsets.
        let n = unsafe {
            libc::pipe(ends.as_mut_ptr());
            libc::write(ends[1], b"spliced".as_ptr().cast(), 7);
            libc::splice(ends[0], null_mut(), fd.0, null_mut(), 7, 0)
        };
        let _ends = ends.map(Fd);
        format!("{n} {}", recv(&fd, 7, libc::MSG_WAITALL))
    }),
    ("a megabyte, all of it arrives", |e| {
        let fd = to(e, b'N');
        let bytes = vec![b'x'; 1 << 20];
        let mut sent = 0;
        while sent < bytes.len() {
            // SAFETY: the rest of `bytes`.
            let n = unsafe { libc::send(fd.0, bytes[sent..].as_ptr().cast(), bytes.len() - sent, 0) };
            if n <= 0 {
                return errno();
            }
            sent += n as usize;
        }
        format!("{} {}", shutdown(&fd, libc::SHUT_WR), rest(&fd))
    }),
    ("send: a peer that does not read: EAGAIN in the end, and not writable", |e| {
        let fd = to(e, b'S');
        let bytes = vec![0u8; 1 << 16];
        let full = wait_until(|| {
            // SAFETY: the pointer and length are those of `bytes`.
            let n = unsafe { libc::send(fd.0, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
            n < 0 && poll(&fd, libc::POLLOUT, 100) == "nothing"
        });
        format!("{full} {}", send(&fd, b"x", libc::MSG_DONTWAIT))
    }),
    ("shutdown: the sending half; the peer counts and answers", |e| {
        let fd = to(e, b'N');
        send(&fd, b"12345", 0);
        format!("{} {} {}", shutdown(&fd, libc::SHUT_WR), send(&fd, b"x", 0), rest(&fd))
    }),
    ("shutdown: the receiving half", |e| {
        let fd = to(e, b'E');
        format!("{} {} {}", shutdown(&fd, libc::SHUT_RD), recv(&fd, 1, 0), poll(&fd, libc::POLLIN, WAIT_MS))
    }),
    ("shutdown: both", |e| {
        let fd = to(e, b'E');
        let s = shutdown(&fd, libc::SHUT_RDWR);
        format!("{s} {} {}", recv(&fd, 1, 0), send(&fd, b"x", 0))
    }),
    ("shutdown: a fresh socket", |_| shutdown(&tcp(), libc::SHUT_WR)),
    ("shutdown: twice", |e| {
        let fd = to(e, b'S');
        format!("{} {}", shutdown(&fd, libc::SHUT_WR), shutdown(&fd, libc::SHUT_WR))
    }),
    ("the peer closes: data, then the end, poll", |e| {
        let fd = to(e, b'C');
        wait_until(|| poll(&fd, libc::POLLRDHUP, 0).contains("RDHUP"));
        let p = poll(&fd, libc::POLLIN | libc::POLLRDHUP, WAIT_MS);
        format!("{p} {} {}", recv(&fd, 6, libc::MSG_WAITALL), recv(&fd, 1, 0))
    }),
    ("the peer closes: sending still works", |e| {
        let fd = to(e, b'C');
        rest(&fd);
        send(&fd, b"more", 0)
    }),
    ("the peer resets: poll, recv, send", |e| {
        let fd = to(e, b'R');
        wait_until(|| poll(&fd, libc::POLLIN, 0).contains("ERR"));
        let p = poll(&fd, libc::POLLIN | libc::POLLOUT, WAIT_MS);
        format!("{p} {} {} {}", recv(&fd, 1, 0), recv(&fd, 1, 0), send(&fd, b"x", 0))
    }),
    ("the peer resets: SO_ERROR", |e| {
        let fd = to(e, b'R');
        wait_until(|| poll(&fd, libc::POLLIN, 0).contains("ERR"));
        format!("{} {}", so_error(&fd), so_error(&fd))
    }),
    ("close: the peer sees the end", |e| {
        let fd = to(e, b'F');
        recv(&fd, 1, 0);
        drop(fd);
        outcome(e)
    }),
    ("close: SO_LINGER 0: the peer sees a reset", |e| {
        let fd = to(e, b'F');
        poll(&fd, libc::POLLIN, WAIT_MS);
        recv(&fd, 1, 0);
        let l = linger(&fd, 1, 0);
        drop(fd);
        format!("{l} {}", outcome(e))
    }),
    ("close: SO_LINGER 5 with data: it arrives", |e| {
        let fd = to(e, b'F');
        recv(&fd, 1, 0);
        let l = linger(&fd, 1, 5);
        send(&fd, b"abc", 0);
        drop(fd);
        format!("{l} {}", outcome(e))
    }),
    ("close: with data that was not read: the peer sees a reset", |e| {
        let fd = to(e, b'F');
        poll(&fd, libc::POLLIN, WAIT_MS);
        drop(fd);
        outcome(e)
    }),
    ("send: MSG_OOB, the peer sees it", |e| {
        let fd = to(e, b'U');
        send(&fd, b"ab", 0);
        let sent = send(&fd, b"c", libc::MSG_OOB);
        send(&fd, b"d", 0);
        shutdown(&fd, libc::SHUT_WR);
        format!("{sent} {}", rest(&fd))
    }),
    ("recv: MSG_OOB", |e| {
        let fd = to(e, b'O');
        wait_until(|| poll(&fd, libc::POLLPRI, 0).contains("PRI"));
        let urgent = recv(&fd, 1, libc::MSG_OOB);
        wait_until(|| poll(&fd, libc::POLLRDHUP, 0).contains("RDHUP"));
        format!("{urgent} {} {} {}", recv(&fd, 9, 0), recv(&fd, 9, 0), recv(&fd, 9, 0))
    }),
    ("recv: SO_OOBINLINE and SIOCATMARK", |e| {
        let fd = tcp();
        set(&fd, SOL_SOCKET, libc::SO_OOBINLINE, 1);
        connect(&fd, e.v4);
        send(&fd, b"O", 0);
        wait_until(|| poll(&fd, libc::POLLRDHUP, 0).contains("RDHUP"));
        let at_mark = || {
            let mut at = 0;
            // SAFETY: SIOCATMARK writes an int.
            unsafe { libc::ioctl(fd.0, 0x8905, &mut at) };
            at
        };
        let first = at_mark();
        let a = recv(&fd, 9, 0);
        format!("{first} {a} {} {}", at_mark(), recv(&fd, 9, 0))
    }),
    ("dup: the copy works when the first is closed", |e| {
        let fd = to(e, b'E');
        // SAFETY: it takes no pointers.
        let copy = Fd(unsafe { libc::dup(fd.0) });
        drop(fd);
        format!("{} {}", echo(&copy), ip(name(&copy, true)))
    }),
    ("fork: the child writes, the parent reads", |e| {
        let fd = to(e, b'E');
        // SAFETY: the child calls what a signal handler could, and ends.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::send(fd.0, b"kid".as_ptr().cast(), 3, 0);
                libc::_exit(0);
            }
            libc::waitpid(child, null_mut(), 0);
        }
        recv(&fd, 3, libc::MSG_WAITALL)
    }),
    ("SCM_RIGHTS: the received descriptor works", |e| {
        use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
        let fd = to(e, b'E');
        let Ok((a, b)) = std::os::unix::net::UnixStream::pair() else { return errno() };
        // SAFETY: it is open while it is borrowed.
        let fds = [unsafe { BorrowedFd::borrow_raw(fd.0) }];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = rustix::net::SendAncillaryBuffer::new(&mut space);
        ancillary.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
        let iov = [std::io::IoSlice::new(b"x")];
        if rustix::net::sendmsg(a.as_fd(), &iov, &mut ancillary, rustix::net::SendFlags::empty()).is_err() {
            return errno();
        }
        drop(fd);
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut iov = [std::io::IoSliceMut::new(&mut byte)];
        if rustix::net::recvmsg(b.as_fd(), &mut iov, &mut ancillary, rustix::net::RecvFlags::empty()).is_err() {
            return errno();
        }
        let received = ancillary.drain().find_map(|m| match m {
            rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let Some(received) = received else { return "no descriptor".into() };
        let received = Fd(received.into_raw_fd());
        format!("{} {}", echo(&received), ip(name(&received, true)))
    }),
    ("epoll: level-triggered, registered before connect", |e| epoll_before(e, 0)),
    ("epoll: edge-triggered, registered before connect", |e| epoll_before(e, libc::EPOLLET)),
    ("select: readable", |e| {
        let fd = to(e, b'E');
        send(&fd, b"x", 0);
        // SAFETY: a set of zeros is empty; the descriptor is small.
        unsafe {
            let mut set: libc::fd_set = std::mem::zeroed();
            libc::FD_SET(fd.0, &mut set);
            let mut timeout = libc::timeval { tv_sec: 3, tv_usec: 0 };
            let n = libc::select(fd.0 + 1, &mut set, null_mut(), null_mut(), &mut timeout);
            format!("{n} {}", libc::FD_ISSET(fd.0, &set))
        }
    }),
    ("exec: close-on-exec is kept", |e| {
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC);
        connect(&fd, e.v4);
        fcntl(&fd, libc::F_GETFD).to_string()
    }),
];
