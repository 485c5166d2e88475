//! `ringfence rules`: what it prints, and what it says when it can't.

use crate::world::{World, good, text};

#[test]
fn an_empty_ruleset_is_saved_restored_and_listed() {
    let Some(world) = World::new() else { return };
    let saved = good(world.run("rules save"));
    assert!(saved.starts_with("{\"ringfence\":{\"schema\":1,\"ruleset\":{"), "{saved}");
    let document: serde_json::Value = serde_json::from_str(&saved).unwrap();
    assert!(document["ringfence"]["ruleset"]["tables"].is_array());
    assert_eq!(good(world.run("rules save")), saved, "two of the same differ");
    good(world.run("rules list"));
}

#[test]
fn what_is_asked_wrongly_is_told() {
    let Some(world) = World::new() else { return };
    for (arguments, expected) in [
        ("rules", "save"),
        ("rules salve", "salve"),
        ("rules save --netns /nowhere/at/all", "/nowhere/at/all"),
        ("rules list --netns no-such-name", "no-such-name"),
    ] {
        let output = world.run(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{arguments}: {error}");
        assert!(error.contains(expected), "{arguments}: {error}");
    }
}
