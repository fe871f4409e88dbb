//! The other end: what a connection's first byte asks for.
//!
//! | byte | what |
//! |---|---|
//! | `E` | gives everything back until the end |
//! | `C` | says "hello\n" and closes its half |
//! | `R` | resets |
//! | `N` | counts until the end, then says how many |
//! | `A` length | reads so many bytes more, answers with 64, closes |
//! | `B` | sends without end |
//! | `P` | says the port that it sees, in five digits |
//! | `S` | says nothing and reads nothing |
//! | `U` | says what it received, and what of it urgently |
//! | `O` | says "ab", urgently "c", "d", and closes its half |
//! | `F` | says one byte, reads to the end, and keeps in mind how that was |
//! | `Q` | says how the last `F` ended |
//! | `L` port | connects there after 100 ms, says "ping", reads four bytes, closes, and says how it went |
//! | `G` port | connects there, closes at once, and says "gone" |

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use socket2::SockRef;

/// Where it listens, over both families.
pub const PORT: u16 = 4242;

const PATIENCE: Duration = Duration::from_secs(5);

static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Serves for ever.
pub fn serve() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
    println!("listening");
    for stream in listener.incoming() {
        let stream = stream?;
        // One that goes wrong is over; its row says so.
        std::thread::spawn(move || serve_one(stream));
    }
    Ok(())
}

fn serve_one(mut s: TcpStream) -> io::Result<()> {
    let mut what = [0];
    s.read_exact(&mut what)?;
    match what[0] {
        b'E' => {
            let mut from = s.try_clone()?;
            io::copy(&mut from, &mut s)?;
        }
        b'C' => {
            s.write_all(b"hello\n")?;
            s.shutdown(Shutdown::Write)?;
            io::copy(&mut s, &mut io::sink())?;
        }
        b'R' => SockRef::from(&s).set_linger(Some(Duration::ZERO))?,
        b'N' => {
            let n = io::copy(&mut s, &mut io::sink())?;
            write!(s, "{n}")?;
        }
        b'A' => {
            let mut length = [0; 4];
            s.read_exact(&mut length)?;
            let length = u64::from(u32::from_be_bytes(length));
            io::copy(&mut (&s).take(length), &mut io::sink())?;
            s.write_all(&[2; 64])?;
        }
        b'B' => {
            let bytes = vec![0; 64 * 1024];
            while s.write_all(&bytes).is_ok() {}
        }
        b'P' => write!(s, "{:05}", s.peer_addr()?.port())?,
        b'S' => {
            std::thread::sleep(PATIENCE);
        }
        b'U' => {
            let (mut all, mut urgent) = (Vec::new(), Vec::new());
            let mut buffer = [0; 64];
            loop {
                let mut fds = [PollFd::new(&s, PollFlags::IN | PollFlags::PRI)];
                rustix::event::poll(&mut fds, None)?;
                let is_urgent = fds[0].revents().contains(PollFlags::PRI);
                let mut byte = [std::mem::MaybeUninit::<u8>::uninit(); 1];
                if is_urgent && let Ok(1) = SockRef::from(&s).recv_out_of_band(&mut byte) {
                    // SAFETY: one byte was received into it.
                    urgent.push(unsafe { byte[0].assume_init() });
                    continue;
                }
                let n = s.read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                all.extend_from_slice(&buffer[..n]);
            }
            write!(s, "{} urgently {}", String::from_utf8_lossy(&all), String::from_utf8_lossy(&urgent))?;
        }
        b'O' => {
            s.write_all(b"ab")?;
            SockRef::from(&s).send_out_of_band(b"c")?;
            s.write_all(b"d")?;
            s.shutdown(Shutdown::Write)?;
            io::copy(&mut s, &mut io::sink())?;
        }
        b'F' => {
            *last() = None;
            s.write_all(b"!")?;
            let mut all = Vec::new();
            let end = s.read_to_end(&mut all);
            let how = end.map_or_else(|e| format!("{:?}", e.kind()), |_| "the end".to_owned());
            *last() = Some(format!("{:?} and {how}", String::from_utf8_lossy(&all)));
        }
        b'Q' => {
            let end = Instant::now() + PATIENCE;
            while last().is_none() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            let how = last().clone().unwrap_or_else(|| "nothing yet".into());
            s.write_all(how.as_bytes())?;
        }
        b'L' | b'G' => {
            let mut port = [0; 2];
            s.read_exact(&mut port)?;
            let ip = s.peer_addr()?.ip().to_canonical();
            let to = SocketAddr::new(ip, u16::from_be_bytes(port));
            let said = if what[0] == b'L' { ping(to) } else { TcpStream::connect(to).map(|_| "gone".to_owned()) };
            let said = said.unwrap_or_else(|e| format!("{:?}", e.kind()));
            s.write_all(said.as_bytes())?;
        }
        _ => {}
    }
    Ok(())
}

fn last() -> std::sync::MutexGuard<'static, Option<String>> {
    LAST.lock().unwrap_or_else(|e| e.into_inner())
}

fn ping(to: SocketAddr) -> io::Result<String> {
    std::thread::sleep(Duration::from_millis(100));
    let mut s = TcpStream::connect_timeout(&to, PATIENCE)?;
    s.set_read_timeout(Some(PATIENCE))?;
    s.write_all(b"ping")?;
    let mut answer = [0; 4];
    match s.read_exact(&mut answer) {
        Ok(()) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok("the end".to_owned()),
        Err(e) => Err(e),
    }
}
