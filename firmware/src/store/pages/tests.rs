//! Tests of pages and streams.

use super::*;
use crate::seq::Seq;
use proptest::prelude::*;

fn pool(count: u32, streams: u32) -> Pages {
    let plan = AccountPlan { count: 2, name: "own", pages: 0, connections: streams, tags: false };
    Pages::new((Gauge::new("pages", "deny", count.into()), Reason::SendMemory), count, 512, streams, 8, plan)
}

#[test]
fn what_is_promised_is_there() {
    // Three streams with two pages each, and two to share.
    let mut pages = pool(8, 3);
    let mut streams: Vec<_> = (0..3).map(Stream::new).collect();
    let start = Position::initial(Seq(0));
    for s in &mut streams {
        s.open(&mut pages, start);
    }
    assert_eq!(streams[0].grant(&mut pages, start + 5000).since(start), 4 * 512, "its own and all the shared");
    assert_eq!(streams[1].grant(&mut pages, start + 5000).since(start), 2 * 512, "its own");
    assert_eq!(streams[2].grant(&mut pages, start + 700).since(start), 700);
    for s in &mut streams {
        let limit = s.limit();
        s.write(&mut pages, start, &vec![7; limit.since(start) as usize]);
    }
    assert_eq!(pages.gauge.free(), 0);
    streams[0].release_before(&mut pages, start + 1024);
    assert_eq!(streams[1].grant(&mut pages, start + 5000).since(start), 4 * 512);
    for s in &mut streams {
        s.close(&mut pages);
    }
    assert_eq!((pages.gauge.in_use(), pages.free_count, pages.shared_free), (0, 8, 2));
}

/// Two accounts: the one that had everything gets nothing more while the other has less than its share and waits.
#[test]
fn accounts_that_compete_come_to_their_fair_share() {
    // Two streams with two pages each, and eight to share.
    let mut pages = pool(12, 2);
    let start = Position::initial(Seq(0));
    let page = |n: u64| start + n * 512;
    let mut streams = [Stream::new(0), Stream::new(1)];
    streams[1].recharge(&mut pages, 1);
    for s in &mut streams {
        s.open(&mut pages, start);
    }
    assert_eq!(streams[0].grant(&mut pages, page(8)), page(8));
    assert_eq!(streams[0].grant(&mut pages, page(8)), page(8));
    assert_eq!(streams[1].grant(&mut pages, page(8)), page(4), "what is left of the eight, and its own");
    assert!(pages.is_starved() && pages.next_hungry().is_none());
    for n in 1..=4 {
        streams[0].release_before(&mut pages, page(n));
        // The rich one asks first, and would take it.
        let rich = streams[0].grant(&mut pages, page(8 + n));
        while let Some(table) = pages.next_hungry() {
            streams[table as usize].grant(&mut pages, page(8));
        }
        assert_eq!(rich, if n <= 2 { page(8) } else { page(6 + n) }, "{n}");
    }
    assert_eq!((streams[0].shared(&pages), streams[1].shared(&pages)), (4, 4));
    let refused =
        |account| pages.account(account).refusals.iter().any(|(r, n)| *r == Reason::FairShare as u32 && *n > 0);
    assert!(refused(0) && !refused(1));
    streams.iter_mut().for_each(|s| s.close(&mut pages));
    assert_eq!((pages.gauge.in_use(), pages.shared_free, pages.active), (0, 8, 0));
}

/// A card of many connections: who has just begun gets a part of what is free, and who moves comes to a part like the
/// others', however much some had before.
#[test]
fn those_who_move_come_to_equal_parts_and_those_who_do_not_hold_little() {
    // 64 streams with two pages each, and 256 to share: a quarter of what is free for who has just begun.
    let mut pages = Pages { tables: vec![NONE; 64 * 512].into(), table_len: 512, ..pool(384, 64) };
    assert_eq!(pages.parts, 4);
    let start = Position::initial(Seq(0));
    let page = |n: u64| start + n * 512;
    let mut streams: Vec<_> = (0..64).map(Stream::new).collect();
    streams.iter_mut().for_each(|s| s.open(&mut pages, start));
    // A silent one asks for much, again and again.
    (0..10).for_each(|_| _ = streams[0].grant(&mut pages, page(200)));
    assert_eq!(streams[0].shared(&pages), 64);
    // Five move, and always want two hundred pages beyond what they have done.
    let mut at = [0; 6];
    for round in 0..2000 {
        let i = 1 + round % 5;
        at[i] += 1;
        let limit = streams[i].grant(&mut pages, page(at[i] + 200));
        let done = page(at[i]).min(limit);
        streams[i].release_before(&mut pages, done);
        streams[i].grant(&mut pages, page(at[i] + 200));
    }
    let held: Vec<_> = streams[1..6].iter().map(|s| s.shared(&pages)).collect();
    let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
    assert!(*least >= 30 && most - least <= 16, "{held:?}");
    assert!(pages.shared_free > 0, "who comes late finds something");
    streams[6].grant(&mut pages, page(200));
    assert_eq!(streams[6].shared(&pages), u64::from(PAGES_RESERVED));
    streams.iter_mut().for_each(|s| s.close(&mut pages));
    assert_eq!((pages.gauge.in_use(), pages.shared_free), (0, 256));
}

/// A quota leaves pages to others that nobody else wants; who waits for it waits for its own account.
#[test]
fn an_account_has_no_more_than_its_quota() {
    let plan = AccountPlan { count: 1, name: "own", pages: 6, connections: 2, tags: false };
    let gauge = Gauge::new("pages", "deny", 12);
    let mut pages = Pages::new((gauge, Reason::SendMemory), 12, 512, 2, 8, plan);
    let start = Position::initial(Seq(0));
    let page = |n: u64| start + n * 512;
    let mut a = Stream::new(0);
    let mut b = Stream::new(1);
    a.open(&mut pages, start);
    b.open(&mut pages, start);
    assert_eq!(a.grant(&mut pages, page(8)), page(4), "two of its own, and six less the reserves of both");
    assert_eq!(b.grant(&mut pages, page(8)), page(2));
    assert!(pages.next_hungry().is_none() && !pages.is_starved());
    a.release_before(&mut pages, page(2));
    assert!(pages.next_hungry().is_some());
    assert_eq!(pages.account(0).refusals[0], (Reason::Quota as u32, 2));
    a.close(&mut pages);
    b.close(&mut pages);
}

proptest! {
    /// Two streams against plain vectors; grants always add up.
    #[test]
    fn bytes_come_back(
        initial: u32,
        steps in proptest::collection::vec((0usize..2, 0u64..3000, 0usize..900, 0u64..1800), 1..80),
    ) {
        let mut pages = pool(12, 2);
        let start = Position::initial(Seq(initial));
        let mut streams = [Stream::new(0), Stream::new(1)];
        let mut written = [Vec::<u8>::new(), Vec::new()];
        streams.iter_mut().for_each(|s| s.open(&mut pages, start));
        for (i, wanted, write, release) in steps {
            let s = &mut streams[i];
            let before = s.limit();
            let end = start + written[i].len() as u64;
            let limit = s.grant(&mut pages, end + wanted);
            prop_assert!(limit >= before);
            let n = write.min(limit.since(end) as usize);
            let bytes: Vec<u8> = (0..n).map(|k| (written[i].len() + k) as u8 ^ i as u8).collect();
            s.write(&mut pages, end, &bytes);
            written[i].extend(&bytes);
            let mut out = vec![0; written[i].len() - s.start().since(start) as usize];
            s.read(&pages, s.start(), &mut out);
            prop_assert_eq!(&out[..], &written[i][s.start().since(start) as usize..]);
            let to = (s.start() + release).min(start + written[i].len() as u64);
            s.release_before(&mut pages, to);
            if s.start() == start + written[i].len() as u64 {
                let (before, in_use) = (s.limit(), pages.gauge.in_use());
                s.align(&mut pages);
                prop_assert_eq!((s.limit(), pages.gauge.in_use()), (before, in_use));
                let at = s.start();
                let room = s.grant(&mut pages, at + 1024).since(at);
                prop_assert!(s.shared(&pages) > 0 || room >= 1024, "two pages hold {} bytes", room);
            }
            prop_assert!(pages.gauge.in_use() <= 12);
            // A stream that holds nothing can always go on.
            if s.start() == start + written[i].len() as u64 {
                let at = s.start();
                prop_assert!(s.grant(&mut pages, at + 512).since(at) >= 1);
            }
        }
        streams.iter_mut().for_each(|s| s.close(&mut pages));
        prop_assert_eq!((pages.gauge.in_use(), pages.free_count, pages.shared_free), (0, 12, 8));
    }
}
