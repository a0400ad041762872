use super::*;
use crate::script::Begun;

const CONTEXT: Context = Context { now_ns: 0, sent: 0 };
const HOME: Life = (0, 0);
const OTHER: Life = (1, 0);

fn view(round: u32, cores: &[usize]) -> View {
    let coordinator = 0;
    View {
        epoch: Epoch { round, coordinator },
        cores: cores.iter().copied().collect(),
        settings: 0,
    }
}

/// Core 1 has mapped page 0 of a space of core 0, and has it; its frame.
fn mapped() -> (AddressSpaces, SpaceId, u64) {
    let mut judge = AddressSpaces::new(1, 0);
    let (space, frame) = (space(HOME, 0), tables::frame(OTHER, 1));
    for life in [HOME, OTHER] {
        judge.load(life, None);
        let installed = Note::Installed(view(1, &[0, 1, 2]));
        judge.on_note(life, installed, CONTEXT).unwrap();
    }
    let op = Op::Map(space, Pages::one(0));
    let begun = Note::Begun(Begun {
        token: 1,
        op,
        measured: None,
    });
    let done = Note::Done {
        token: 1,
        result: Ok(()),
    };
    for note in [begun, has(space, frame), done] {
        judge.on_note(OTHER, note, CONTEXT).unwrap();
    }
    (judge, space, frame)
}

fn has(space: SpaceId, frame: u64) -> Note {
    Note::Has(space, 0, Some((frame, Rights::READ)))
}

fn knows(homes: &[(SpaceId, usize)], mapped: &[(SpaceId, u64, u64, Rights)]) -> Note {
    Note::Knows(Knowledge {
        homes: homes.to_vec(),
        mapped: mapped.to_vec(),
        recovering: Vec::new(),
    })
}

#[test]
fn the_judge_sees_what_is_free_and_in_use() {
    let (mut judge, space, frame) = mapped();
    let freed = || Note::Freed(space, Pages::one(0), frame);
    assert!(
        judge.on_note(HOME, freed(), CONTEXT).is_err(),
        "core 1 has it"
    );
    let (mut judge, ..) = mapped();
    let gone = Note::Has(space, 0, None);
    judge.on_note(OTHER, gone, CONTEXT).unwrap();
    judge.on_note(HOME, freed(), CONTEXT).unwrap();
    assert!(judge.on_note(HOME, freed(), CONTEXT).is_err(), "twice");
    assert!(judge.on_note(HOME, has(space, frame), CONTEXT).is_err());
}

#[test]
fn the_judge_sees_what_is_forgotten() {
    let living = [HOME, OTHER];
    let (mut judge, space, frame) = mapped();
    let all = [(space, 0, frame, Rights::READ)];
    judge.on_note(HOME, knows(&[], &all), CONTEXT).unwrap();
    assert!(judge.outcome(&living).is_err(), "core 1 knows of no home");
    let of_other = knows(&[(space, 0)], &[]);
    judge.on_note(OTHER, of_other, CONTEXT).unwrap();
    assert!(judge.outcome(&living).is_ok());
    judge.on_note(HOME, knows(&[], &[]), CONTEXT).unwrap();
    assert!(judge.outcome(&living).is_err(), "the home lacks it");
    let gone = Note::Has(space, 0, None);
    judge.on_note(OTHER, gone, CONTEXT).unwrap();
    assert!(judge.outcome(&living).is_err(), "nobody has it");
    // Unless another home, that alone knew of it, has gone.
    for life in living {
        let installed = Note::Installed(view(2, &[0, 1]));
        judge.on_note(life, installed, CONTEXT).unwrap();
    }
    assert!(judge.outcome(&living).is_ok());
    let two = knows(&[(space, 0)], &all);
    judge.on_note(OTHER, two, CONTEXT).unwrap();
    judge.on_note(HOME, knows(&[], &all), CONTEXT).unwrap();
    assert!(judge.outcome(&living).is_err(), "two homes");
}
