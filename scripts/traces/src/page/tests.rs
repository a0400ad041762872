use super::*;
use crate::model::{Dispatcher, Span};
use crate::sample;

#[test]
fn the_page_stands_alone_whatever_names_say() {
    let mut recording = sample::recording(2, 20, 1);
    let evil = "</script><script>{{DATA}}<!--";
    recording.header.program = evil.into();
    recording.header.command = evil.into();
    let mut model = Model::of(&recording);
    for one in &mut model.dispatchers {
        one.name = evil.into();
    }
    for one in &mut model.spans {
        one.name = evil.into();
        one.text = evil.into();
    }
    let page = write(&recording, &model);
    for words in ["http", "src=", "{{", "<!--"] {
        let inside: Vec<_> = page.match_indices(words).collect();
        let allowed = usize::from(words == "{{") * page.matches("{{DATA}}").count();
        assert_eq!(inside.len(), allowed, "{words}");
    }
    assert_eq!(page.matches("<script").count(), 3);
    assert_eq!(page.matches("</script>").count(), 3);
    assert!(page.ends_with("</html>\n"));
}

#[test]
fn what_was_lost_is_said() {
    let mut recording = sample::recording(3, 20, 1);
    let model = Model::of(&recording);
    assert!(write(&recording, &model).contains("<span>0 overwritten</span>"));
    recording.header.cores[1].overwritten = 1_234_567;
    recording.header.cores[2].torn = 3;
    let mut model = model;
    model.half = (4, 5);
    model.early = (7, 6);
    let page = write(&recording, &model);
    for words in [
        "<span class=\"wrong\">1,234,567 overwritten</span>",
        "<span class=\"wrong\">3 torn</span>",
        "<span class=\"wrong\">4 sent but not received, 5 received but not sent</span>",
        "<span class=\"wrong\">6 early (7 before the clocks were set right)</span>",
        "<td class=\"wrong\">1,234,567</td>",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn the_axis_is_called_what_it_is() {
    let mut recording = sample::recording(1, 3, 1);
    let model = Model::of(&recording);
    for (accelerator, words) in [
        ("icount", "guest instructions"),
        ("tcg", "not to be read as that of a machine"),
        ("sim", "simulated nanoseconds"),
        ("else", "of unknown origin"),
    ] {
        recording.header.accelerator = accelerator.into();
        assert!(
            write(&recording, &model).contains(&format!("Time axis: {}", label(&recording.header)))
        );
        assert!(label(&recording.header).contains(words), "{accelerator}");
    }
}

#[test]
fn nothing_at_all_is_a_page() {
    let page = write(&Recording::default(), &Model::default());
    assert!(page.contains("0 cores") && page.contains("no program"));
}

/// A lane with items of these times.
fn stacked(times: &[(u64, u64)]) -> (Lane, usize) {
    let items = times
        .iter()
        .map(|(begin, end)| (*begin, *end, Item::Span(0)));
    let mut lane = Lane {
        items: items.collect(),
        rows: Vec::new(),
    };
    let hidden = lane.stack();
    (lane, hidden)
}

#[test]
fn nothing_covers_another_in_a_row() {
    let (lane, hidden) = stacked(&[(0, 10), (2, 4), (3, 3), (4, 6), (12, 12), (10, 20)]);
    assert_eq!((lane.rows.len(), hidden), (3, 0));
    for row in &lane.rows {
        assert!(row.windows(2).all(|two| two[0].1 <= two[1].0));
    }
    let many = vec![(5, 9); DEPTH + 7];
    let (lane, hidden) = stacked(&many);
    assert_eq!((lane.rows.len(), hidden), (DEPTH, 7));
}

#[test]
fn what_found_no_place_is_counted() {
    let recording = sample::recording(1, 0, 1);
    let mut model = Model::of(&recording);
    model.dispatchers.push(Dispatcher {
        core: 0,
        handle: 9,
        name: "deep".into(),
    });
    let dispatcher = Some(model.dispatchers.len() - 1);
    let span = Span {
        core: 0,
        dispatcher,
        event: event::USER_BEGIN,
        name: "deep".into(),
        text: String::new(),
        begin: 1,
        end: 2,
    };
    model.spans.extend(vec![span; DEPTH + 2]);
    let page = write(&recording, &model);
    assert!(page.contains("2 spans left out") && page.contains("\"hidden\":2"));
}

#[test]
fn the_longest_and_the_first_of_each_kind_are_chosen() {
    let one = |at: usize| Operation {
        flow: at as u64,
        core: 0,
        dispatcher: None,
        kind: u32::from(at == 17_777),
        begin: at as u64,
        end: (at != 5).then_some(at as u64 * 2),
        error: 0,
    };
    let few: Vec<Operation> = (0..CHAINS).map(one).collect();
    assert_eq!(chosen(&few).len(), CHAINS);
    let many: Vec<Operation> = (0..CHAINS + 1).map(one).collect();
    let chosen = chosen(&many);
    assert_eq!(chosen.len(), 2 * CHAINS_OF_KIND + 1);
    assert_eq!(chosen[0], CHAINS);
    for at in [
        0,
        5,
        CHAINS_OF_KIND - 1,
        17_777,
        CHAINS + 1 - CHAINS_OF_KIND,
    ] {
        assert!(chosen.contains(&at), "{at}");
    }
    assert!(!chosen.contains(&CHAINS_OF_KIND) && !chosen.contains(&(CHAINS - CHAINS_OF_KIND)));
}
