use proptest::prelude::*;

use crate::{
    Endpoint, EntryWriter, FRAME_BYTES_MAX, FrameError, Hello, InfoResult, LimitEntry, Mac, Message,
    PROCESS_NAME_BYTES_MAX, ParseError, Parsed, Reason, ReceiveCredit, Send, SocketEntry, StatEntry, Writer,
    limit_entries, socket_entries, stat_entries,
};

const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

#[test]
fn what_is_written_is_read() {
    let mut buffer = vec![0xaa; 400];
    let mut w = Writer::new(&mut buffer, A, B, 7, 9, 0x1234).unwrap();
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        lease_ms: 5,
        frame_bytes_max: 6,
        reserved: 0,
        receive_bytes_max: u64::MAX,
    };
    let credit = ReceiveCredit { connection: 1, held: 2, limit: 3, seen: 4 };
    assert!(w.push(&Message::Hello(hello)));
    assert!(w.push_with(&Message::Send(Send { connection: 3, offset: 4 }, &[]), 3, |b| b.copy_from_slice(b"abc")));
    assert!(w.push(&Message::ReceiveCredit(credit)));
    let length = w.finish();
    let parsed = Parsed::new(&buffer[..length]).unwrap();
    assert_eq!((parsed.source, parsed.destination), (A, B));
    assert_eq!((parsed.header.context, parsed.header.epoch, parsed.header.key), (7, 9, 0x1234));
    let messages: Vec<_> = parsed.messages.collect::<Result<_, _>>().unwrap();
    assert_eq!(
        messages,
        [
            Message::Hello(hello),
            Message::Send(Send { connection: 3, offset: 4 }, b"abc"),
            Message::ReceiveCredit(credit)
        ]
    );
}

#[test]
fn a_message_that_does_not_fit_is_not_written() {
    let mut buffer = vec![0; 14 + 40 + 8 + 24 + 8];
    let mut w = Writer::new(&mut buffer, A, B, 0, 0, 0).unwrap();
    let send = Message::Send(Send { connection: 0, offset: 0 }, &[]);
    let room = w.room(&send);
    assert_eq!(room, 16);
    assert!(!w.push_with(&send, room + 1, |_| unreachable!()));
    assert!(w.is_empty());
    assert!(w.push_with(&send, room, |b| b.fill(1)));
    assert!(!w.push(&send));
    assert_eq!(w.finish(), buffer.len());
}

#[test]
fn endpoints_of_both_families_survive_even_unspecified() {
    for text in ["192.0.2.1:80", "[2001:db8::1]:443", "0.0.0.0:1", "[::]:2", "[::1]:3"] {
        let endpoint = Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        let mut bytes = [0; 24];
        crate::codec::Field::put(&endpoint, &mut bytes);
        assert_eq!(<Endpoint as crate::codec::Field>::get(&bytes).to_string(), text);
    }
}

#[test]
fn a_wrong_message_does_not_hide_the_next_unless_its_length_is_wrong() {
    let mut buffer = vec![0; 200];
    let mut w = Writer::new(&mut buffer, A, B, 0, 0, 0).unwrap();
    let send = Message::Send(Send { connection: 0, offset: 0 }, &[]);
    assert!(w.push(&send) && w.push(&send));
    let length = w.finish();
    let frame = &mut buffer[..length];
    frame[54..56].copy_from_slice(&0x7777u16.to_le_bytes());
    let messages: Vec<_> = Parsed::new(frame).unwrap().messages.collect();
    assert_eq!(messages, [Err(ParseError::Unknown { kind: 0x7777 }), Ok(send)]);
    frame[58..62].copy_from_slice(&7u32.to_le_bytes());
    let messages: Vec<_> = Parsed::new(frame).unwrap().messages.collect();
    assert_eq!(messages, [Err(ParseError::Length { kind: 0x7777 })]);
}

#[test]
fn entries_are_read_as_written() {
    let limit = LimitEntry {
        name: "connections",
        policy: "fallback",
        capacity: 8,
        in_use: 3,
        high_water: 5,
        refusals: [(2, 4), (0, 0), (0, 0), (0, 0)],
        each: 6,
    };
    let mut buffer = [0; 300];
    let mut w = EntryWriter::new(&mut buffer);
    assert!(w.limit(&limit) && w.limit(&limit));
    let used = w.finish();
    assert_eq!(limit_entries(&buffer[..used]).collect::<Vec<_>>(), [limit, limit]);
    let stat = StatEntry { name: "wire-frames-in", value: 17 };
    let mut w = EntryWriter::new(&mut buffer);
    while w.stat(&stat) {}
    let used = w.finish();
    assert_eq!(used, 288, "9 entries of 32 bytes");
    assert!(stat_entries(&buffer[..used]).all(|s| s == stat));
    assert_eq!(stat_entries(&buffer[..used]).count(), 9);
}

#[test]
fn sockets_are_read_as_written_whatever_their_names() {
    for name in ["", "a", "sixteen bytes xx"] {
        let mut entry = SocketEntry {
            info: InfoResult {
                local: Endpoint::new([192, 0, 2, 1].into(), 80),
                tcp_state: 10,
                segments_out: u64::MAX,
                ..InfoResult::default()
            },
            receive_queue: 1,
            send_queue: 2,
            timer_ms: 3,
            timer: 4,
            timer_repeats: 5,
            controller: 6,
            pid: 7,
            uid: 8,
            name: [0; PROCESS_NAME_BYTES_MAX],
            name_bytes: name.len() as u8,
        };
        entry.name[..name.len()].copy_from_slice(name.as_bytes());
        let mut buffer = [0xaa; 500];
        let mut w = EntryWriter::new(&mut buffer);
        assert!(w.socket(&entry) && w.socket(&entry) && !w.socket(&entry));
        let used = w.finish();
        assert_eq!(used, 2 * SocketEntry::bytes(name.as_bytes()));
        assert_eq!(socket_entries(&buffer[..used]).collect::<Vec<_>>(), [entry, entry]);
        // A name that is said to be longer than any is none.
        buffer[SocketEntry::bytes(b"") - 9] = 17;
        assert_eq!(socket_entries(&buffer[..used]).count(), 0);
    }
}

#[test]
fn reasons_have_distinct_values_and_names() {
    for (i, a) in Reason::ALL.iter().enumerate() {
        assert_eq!(Reason::from_u32(*a as u32), Some(*a));
        assert!(Reason::ALL[..i].iter().all(|b| b.as_str() != a.as_str()));
    }
    assert_eq!(Reason::from_u32(u32::MAX), None);
}

#[test]
fn a_frame_that_is_none_is_named() {
    let mut frame = vec![0; 60];
    assert_eq!(Parsed::new(&frame[..13]).unwrap_err(), FrameError::Truncated);
    assert_eq!(Parsed::new(&frame).unwrap_err(), FrameError::NotChannel);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    assert_eq!(Parsed::new(&frame[..53]).unwrap_err(), FrameError::Truncated);
    assert_eq!(Parsed::new(&frame).unwrap_err(), FrameError::Version(0));
    frame[14] = 1;
    assert!(Parsed::new(&frame).is_ok());
    frame[18] = 7;
    assert_eq!(Parsed::new(&frame).unwrap_err(), FrameError::Length);
}

proptest! {
    /// Parsing is total, ends, and reads back what it would write.
    #[test]
    fn any_bytes_parse(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), plausible in any::<bool>()) {
        if plausible && bytes.len() > 54 {
            bytes[12..16].copy_from_slice(&[0x88, 0xb5, 1, 0]);
            let rest = (bytes.len() - 54) as u32;
            bytes[18..22].copy_from_slice(&rest.to_le_bytes());
        }
        if let Ok(parsed) = Parsed::new(&bytes) {
            for message in parsed.messages.flatten() {
                let mut buffer = vec![0; FRAME_BYTES_MAX];
                let mut w = Writer::new(&mut buffer, A, B, 0, 0, 0).unwrap();
                prop_assert!(w.push(&message));
                let length = w.finish();
                let again = Parsed::new(&buffer[..length]).unwrap().messages.next();
                prop_assert_eq!(again, Some(Ok(message)));
            }
        }
    }

    #[test]
    fn any_entries_parse(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        limit_entries(&bytes).for_each(drop);
        stat_entries(&bytes).for_each(drop);
    }
}
