# What programs do around their sockets rather than with them; to be run under `toe run`. On the other end of the wire a server
# echoes at port 7100, at both families, and nobody listens at port 9.
import array
import ctypes
import errno
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import threading

PEER = ("192.0.2.1", 7100)
libc = ctypes.CDLL(None, use_errno=True)


def echo(s, data=b"x"):
    s.sendall(data)
    return s.recv(len(data), socket.MSG_WAITALL) == data


def connected(to=PEER):
    s = socket.create_connection(to, 20)
    s.settimeout(None)
    return s


def in_child(what):
    """What `what` returns in a child of its own; or the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            code = int(what())
        except OSError as e:
            code = 100 + e.errno % 100
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def filtered(action, numbers):
    """A seccomp filter that does `action` for these calls."""
    steps = [struct.pack("HBBI", 0x20, 0, 0, 0)]
    for number in numbers:
        steps += [struct.pack("HBBI", 0x15, 0, 1, number), struct.pack("HBBI", 0x06, 0, 0, action)]
    steps.append(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))
    code = ctypes.create_string_buffer(b"".join(steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    libc.prctl(38, 1, 0, 0, 0)
    return libc.prctl(22, 2, program, 0, 0)


def sandbox_allows():
    assert filtered(0x00050000 | errno.EPERM, [165]) == 0
    return echo(connected())


def sandbox_forbids():
    assert filtered(0x00050000 | errno.EPERM, [42, 52]) == 0
    connected()


def sandbox_kills():
    assert filtered(0x80000000, [42]) == 0
    connected()


def without_rights():
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    libc.prctl(4, 0, 0, 0, 0)
    return echo(connected())


def without_networks():
    assert libc.unshare(0x40000000) == 0
    connected()


def with_descriptors_full():
    s = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (s.fileno() + 1, s.fileno() + 1))
    s.connect(PEER)
    return echo(s)


def passed():
    ours, theirs = socket.socketpair()
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(PEER)

    def other():
        _, rights, _, _ = theirs.recvmsg(1, socket.CMSG_SPACE(4))
        got = socket.socket(fileno=struct.unpack("i", rights[0][2])[0])
        select.select([], [got], [])
        got.setblocking(True)
        return got.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and echo(got) and got.getpeername() == PEER

    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
    s.close()
    return in_child(other)


def inherited():
    with connected() as s:
        text = f"import socket; s = socket.socket(fileno={s.fileno()}); s.sendall(b'kid'); print(s.recv(3), s.getpeername())"
        return subprocess.run([sys.executable, "-c", text], pass_fds=[s.fileno()], capture_output=True).stdout


def many():
    good = []

    def some():
        for i in range(50):
            with connected() as s:
                good.append(echo(s, b"%d" % i))

    threads = [threading.Thread(target=some) for _ in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return sum(good)


def at_once():
    sockets = [socket.socket() for _ in range(100)]
    p = select.epoll()
    for s in sockets:
        s.setblocking(False)
        p.register(s, select.EPOLLOUT | select.EPOLLET)
        assert s.connect_ex(PEER) == errno.EINPROGRESS
    done = set()
    while len(done) < len(sockets):
        done |= {fd for fd, flags in p.poll(20) if flags == select.EPOLLOUT}
    return all(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 for s in sockets)


def zero_copy():
    with connected() as s:
        s.setsockopt(socket.SOL_SOCKET, 60, 1)
        data = os.urandom(65536)
        sent = s.send(data, 0x4000000)
        back = s.recv(sent, socket.MSG_WAITALL)
        p = select.poll()
        p.register(s, 0)
        p.poll(5000)
        _, told, _, _ = s.recvmsg(1, 512, socket.MSG_ERRQUEUE)
        return back == data[:sent], len(told)


def fixed_port():
    names = []
    for _ in range(2):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.bind(("", 45999))
        s.connect(PEER)
        names.append((echo(s), s.getsockname()))
        s.close()
    return names


def options():
    with connected() as s:
        for name, value in [("TCP_QUICKACK", 1), ("TCP_CORK", 1), ("TCP_CORK", 0), ("TCP_NOTSENT_LOWAT", 16384), ("TCP_LINGER2", 5)]:
            s.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return echo(s), s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)


def ring():
    parameters = ctypes.create_string_buffer(120)
    fd = libc.syscall(425, 8, parameters)
    if fd < 0:
        return os.strerror(ctypes.get_errno())
    os.close(fd)
    return "there"


def fast_open():
    s = socket.socket()
    return s.sendto(b"abc", 0x20000000, PEER), s.recv(3, socket.MSG_WAITALL)


def mapped():
    s = socket.socket(socket.AF_INET6)
    s.connect(("::ffff:192.0.2.1", 7100))
    return echo(s), s.getpeername()[0], s.getsockname()[0]


def to_file():
    with connected() as s, open("/usr/bin/python3", "rb") as f:
        sent = os.sendfile(s.fileno(), f.fileno(), 0, 100000)
        back = s.recv(sent, socket.MSG_WAITALL)
        f.seek(0)
        return sent == 100000 and back == f.read(sent)


def daemon():
    """A child that outlives its parents, and says what it found in a file."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            select.select([], [], [], 1)
            with open("/tmp/daemon.new", "w") as f:
                print(echo(connected()), file=f)
            os.rename("/tmp/daemon.new", "/tmp/daemon")
        os._exit(0)


for test in [sandbox_allows, sandbox_forbids, sandbox_kills, without_rights, without_networks, with_descriptors_full]:
    print(test.__name__, in_child(test))
for test in [passed, inherited, many, at_once, zero_copy, fixed_port, options, ring, fast_open, mapped, to_file]:
    try:
        print(test.__name__, test())
    except OSError as e:
        print(test.__name__, e)
    sys.stdout.flush()
daemon()
