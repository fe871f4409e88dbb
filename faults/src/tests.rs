//! Files that are read, and files that are refused.

use toe_firmware::fault::{Action, Injector, Look, Site};

use crate::{RuleError, read};

fn look() -> Look {
    let end = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
    let end = |text| toe_abi::Endpoint::new(end(text).ip(), end(text).port());
    let ends = Some((end("192.0.2.1:80"), end("192.0.2.2:81")));
    Look { bytes: 100, ends, flags: 0x12, state: Some(8), context: Some(3) }
}

/// Which of the first twenty passages of the wire are struck, one each millisecond.
fn struck(text: &str) -> Vec<u64> {
    let mut injector = Injector::new(read(text).unwrap().of_card("a"), 1, 0);
    (1..=20).filter(|n| injector.at(Site::WireRx, n * 1_000, &look()).is_some()).collect()
}

#[test]
fn when_says_when() {
    let rule =
        |when: &str| struck(&format!("[[rule]]\nsite = \"wire.rx.frame\"\nwhen = {{ {when} }}\naction = \"drop\""));
    assert_eq!(rule("nth = 3"), [3]);
    assert_eq!(rule("from = 3, to = 9, every = 3"), [3, 6, 9]);
    assert_eq!(rule("after = \"4ms\", before = \"6ms\""), [4, 5]);
    assert_eq!(rule("after_bytes = 1800"), [19, 20]);
    assert_eq!(rule(""), (1..=20).collect::<Vec<_>>());
    assert!((3..17).contains(&rule("share = \"50%\"").len()));
}

#[test]
fn states_lead_on() {
    let text = r#"
        [[rule]]
        site = "wire.rx.frame"
        when = { nth = 5, state = "start" }
        action = "duplicate"
        next = "bad"

        [[rule]]
        site = "wire.rx.frame"
        when = { state = "bad" }
        action = "drop"
        times = 2
    "#;
    assert_eq!(struck(text), [5, 6, 7]);
    let rules = read(text).unwrap();
    assert_eq!(rules.as_slice().iter().map(|rule| rule.line).collect::<Vec<_>>(), [2, 8]);
}

#[test]
fn filters_choose_whom() {
    let rule = |filter: &str| {
        struck(&format!("[[rule]]\nsite = \"wire.rx.frame\"\nfilter = {{ {filter} }}\naction = \"drop\"")).len()
    };
    for all in [
        "local = \"192.0.2.1:80\"",
        "remote = \":81\"",
        "flags = \"SYN,ACK\"",
        "card = \"a\"",
        "state = \"established, close-wait\"",
        "context = 3",
    ] {
        assert_eq!(rule(all), 20, "{all}");
    }
    for none in [
        "local = \"192.0.2.2\"",
        "remote = \":80\"",
        "flags = \"SYN FIN\"",
        "card = \"b\"",
        "state = \"established\"",
        "context = 4",
    ] {
        assert_eq!(rule(none), 0, "{none}");
    }
}

#[test]
fn every_action_can_be_written() {
    for (site, text, action) in [
        ("wire.rx.frame", "\"drop\"", Action::Drop),
        ("wire.rx.frame", "\"duplicate\"", Action::Duplicate),
        ("wire.rx.frame", "{ delay = \"5ms\" }", Action::Delay(5_000)),
        ("wire.rx.frame", "\"flip-bit\"", Action::FlipBit(0)),
        ("wire.rx.frame", "{ truncate = 60 }", Action::Truncate(60)),
        ("wire.rx.frame", "{ reorder = 3 }", Action::Reorder(3)),
        ("tcb.snd_una", "\"corrupt\"", Action::Corrupt(None)),
        ("tcb.snd_una", "{ corrupt = 0x7fff }", Action::Corrupt(Some(0x7fff))),
        ("pool.send_pages.alloc", "\"error\"", Action::Error),
        ("pool.send_pages.free", "\"leak\"", Action::Leak),
        ("processor", "\"hang\"", Action::Hang(u64::MAX)),
        ("processor", "{ hang = \"50ms\" }", Action::Hang(50_000)),
        ("processor", "\"crash\"", Action::Crash),
        ("processor", "\"crash-kept\"", Action::CrashKept),
        ("processor", "{ slow = 8 }", Action::Slow { times: 8, lasting_us: u64::MAX }),
        ("processor", "{ slow = 8, lasting = \"1s\" }", Action::Slow { times: 8, lasting_us: 1_000_000 }),
        ("clock", "{ jump = \"5s\" }", Action::Jump(5_000_000)),
        ("timer.retransmit", "\"early\"", Action::Early),
    ] {
        let rules = read(&format!("[[rule]]\nsite = \"{site}\"\naction = {text}")).unwrap();
        assert_eq!(rules.as_slice()[0].action, action, "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_line() {
    let rule = |rest: &str| format!("# two\n\n[[rule]]\nsite = \"wire.rx.frame\"\naction = \"drop\"\n{rest}\n");
    let action = |site: &str, action: &str| format!("[[rule]]\nsite = \"{site}\"\naction = {action}");
    for (text, error) in [
        (
            "[[rule]]\naction = \"drop\"\nsite = \"wire.rx\"".to_owned(),
            "line 3: no site `wire.rx`; the nearest are wire.link, wire.rx.frame, wire.tx.frame",
        ),
        (rule("when = { nth = 3, every = 2 }"), "line 6: `nth` is one passage: `from`, `to` and `every` contradict it"),
        (rule("when = { from = 9, to = 3 }"), "line 6: from 9 to 3 is never"),
        (rule("when = { after = \"2s\", before = \"1s\" }"), "line 6: after 2000000 us and before 1000000 us is never"),
        (rule("when = { after = \"soon\" }"), "line 6: `soon` is no time: a whole number of us, ms or s"),
        (rule("when = { share = \"0%\" }"), "line 6: a share of 0% is never"),
        (
            rule("when = { state = \"bed\" }\nnext = \"bad\""),
            "line 6: no rule leads to state `bed`; there are bad, start",
        ),
        (rule("when = { nth = 1 }\ntimes = 2"), "line 7: `nth` strikes once: `times` contradicts it"),
        (rule("times = 0"), "line 6: `times` of 0 is never"),
        (rule("filter = { flags = \"SIN\" }"), "line 6: no flag `SIN`; the nearest are SYN, FIN, RST"),
        (rule("filter = { state = \"open\" }"), "line 6: no state `open`; the nearest are closed, closing, syn-sent"),
        (
            rule("filter = { local = \"192.0.2.1\", remote = \"2001:db8::1\" }"),
            "line 6: no connection has ends 192.0.2.1 and 2001:db8::1: the filter never matches",
        ),
        (
            "[[rule]]\nsite = \"timer.wake\"\naction = \"drop\"\nfilter = { flags = \"SYN\" }".to_owned(),
            "line 4: nothing at `timer.wake` has ends, state or flags: the filter never matches",
        ),
        (
            "[[rule]]\nsite = \"timer.pace\"\naction = \"drop\"\nfilter = { flags = \"SYN\" }".to_owned(),
            "line 4: what passes `timer.pace` is no segment and has no flags: the filter never matches",
        ),
        (
            action("channel.rx.frame", "\"flip-bit\""),
            "line 3: `channel.rx.frame` cannot flip-bit; it can drop, duplicate, delay",
        ),
        (action("processor", "\"leak\""), "line 3: `processor` cannot leak; it can hang, crash, crash-kept, slow"),
        (action("timer.wake", "\"drip\""), "line 3: no action `drip`; the nearest are drop, jump, delay"),
        (action("processor", "{ slow = 1 }"), "line 3: 1 times slower is not slower"),
        (action("processor", "{ hang = \"0s\" }"), "line 3: `0s` is no time at all"),
        (
            action("processor", "{ slow = 2, hang = \"1s\" }"),
            "line 3: more than one action: the first rule that matches does one thing",
        ),
        (action("clock", "\"jump\""), "line 3: `jump` needs a time: { jump = \"5s\" }"),
    ] {
        assert_eq!(read(&text).unwrap_err().to_string(), error, "{text}");
    }
    let unknown = read(&rule("whem = {}")).unwrap_err();
    assert!(matches!(&unknown, RuleError::Toml(text) if text.contains("line 6")), "{unknown}");
}
