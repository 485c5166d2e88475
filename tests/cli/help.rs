//! Help and version, and the help against the documentation.

use crate::world::{World, good, text};

#[test]
fn help_and_version_are_output_not_errors() {
    let Some(world) = World::new() else { return };
    assert_eq!(good(world.run("--version")), format!("ringfence {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(good(world.run("-V")), good(world.run("--version")));
    let help = good(world.run("--help"));
    for command in ["run", "plan", "doctor", "events", "demo"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        let own = good(world.run(&format!("{command} --help")));
        assert!(own.contains(&format!("Usage: ringfence {command}")), "{own}");
        assert_eq!(good(world.run(&format!("help {command}"))), own);
    }
    // Without a command that is what was wrong.
    let output = world.run("");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0));
    assert!(text(&output.stderr).contains("Usage: ringfence <COMMAND>"));
}

#[test]
fn every_flag_that_is_documented_is_in_the_help() {
    let Some(world) = World::new() else { return };
    let help = ["run --help", "plan --help", "events --help"].map(|arguments| good(world.run(arguments))).concat();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in ["README.md", "docs/policy.md", "docs/security.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        // Commands in fenced blocks are other programs' as well.
        let prose: String = text.split("```").step_by(2).collect();
        for flag in flags(&prose) {
            assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")), "{document}: {flag}");
        }
    }
    // And the other way round: a policy file has a key for every flag, and the document of policy files tells of each.
    let policy = std::fs::read_to_string(root.join("docs/policy.md")).unwrap();
    for flag in flags(&help) {
        let told = policy.contains(&flag) || policy.contains(&format!("`{}`", flag.trim_start_matches('-')));
        assert!(
            told || ["--help", "--quiet", "--verbose", "--format", "--netns", "--group"].contains(&flag.as_str()),
            "docs/policy.md: {flag}"
        );
    }
}

/// What stands under a heading, up to the next.
fn under<'a>(help: &'a str, heading: &str) -> Vec<&'a str> {
    let below = help.lines().skip_while(|line| *line != format!("{heading}:")).skip(1);
    below.take_while(|line| line.is_empty() || line.starts_with(' ')).collect()
}

#[test]
fn everything_stands_under_its_heading() {
    let Some(world) = World::new() else { return };
    for (arguments, heading, wanted) in [
        ("run --help", "Arguments", &[][..]),
        ("run --help", "Files and system calls", &["--landlock", "--ro", "--rw", "--seccomp"]),
        (
            "run --help",
            "What is told",
            &["--events", "--events-format", "--metrics", "--learn", "--quiet", "--verbose"],
        ),
        ("run --help", "Command", &["--user", "--env", "--name", "--share-pid", "--drop-caps", "--keep-caps"]),
        ("plan --help", "Options", &["--format", "--help"]),
        ("plan --help", "Files and system calls", &["--landlock", "--ro", "--rw", "--seccomp"]),
        ("policy set --help", "Arguments", &[]),
    ] {
        let help = good(world.run(arguments));
        let lines = under(&help, heading);
        let begin = |with: &'static str| lines.iter().filter(move |line| line.trim_start().starts_with(with));
        let found: Vec<String> = begin("-").map(|line| flags(line)[0].clone()).collect();
        assert_eq!(found, wanted, "{arguments}, {heading}: {help}");
        assert_eq!(begin("<").count(), usize::from(heading == "Arguments"), "{arguments}, {heading}: {help}");
    }
}

/// Every `--flag` in a text.
fn flags(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("--") {
        let name: String = text[at + 2..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        let starts = text[..at].chars().next_back().is_none_or(|c| c.is_whitespace() || "`(|[".contains(c));
        if starts && !name.is_empty() && !name.starts_with('-') {
            found.push(format!("--{name}"));
        }
    }
    found
}
