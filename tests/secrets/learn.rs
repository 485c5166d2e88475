//! What an audit learns beside a credential.

use crate::office::{CLEAR, Office, TLS, good};
use crate::world::oracle;

#[test]
fn what_was_learned_beside_a_credential_refuses_nothing() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let file = office.path("learned.toml").display().to_string();
    let asks = format!(
        "ask() {{ curl -sS --max-time 20 -o /dev/null -w '%{{http_code}}\\n' \"$@\"; }}; \
        ask -H \"Authorization: Bearer $TOKEN\" https://web.example:{TLS}/token; \
        ask -X DELETE 'https://web.example:{TLS}/echo/a?b=c'; \
        ask --cacert {} https://other.example:{TLS}/open; \
        ask http://web.example:{CLEAR}/open",
        office.path("trusted.ca").display()
    );
    let rule = format!("GET https://web.example:{TLS}/echo/*");
    let credential = format!("TOKEN=env:API_TOKEN,to=web.example:{TLS}");
    let flags = ["--audit", "--learn", &file, "--allow", &rule, "--credential", &credential];
    let shown = good(office.run(&flags, &["sh", "-c", &asks]));
    assert_eq!(shown, "200\n200\n200\n200\n");
    let learned = std::fs::read_to_string(&file).unwrap();
    assert!(!learned.contains("s3cr3t"), "{learned}");
    for entry in [
        format!("\"{rule}\""),
        format!("\"GET https://web.example:{TLS}/token\""),
        format!("\"DELETE https://web.example:{TLS}/echo/a\""),
        format!("\"other.example:{TLS}\""),
        format!("\"web.example:{CLEAR}\""),
        "[[credential]]\nname = \"TOKEN\"\nfrom = \"env:API_TOKEN\"\n".to_owned(),
    ] {
        assert!(learned.contains(&entry), "{entry}\n{learned}");
    }
    // Under it nothing is refused, and nothing more than it says is let through.
    office.heard();
    assert_eq!(good(office.run(&["--policy", &file], &["sh", "-c", &asks])), shown);
    assert!(office.heard().contains("Bearer s3cr3t"));
    let other = format!("curl -sS -o /dev/null -w '%{{http_code}}' -X PUT https://web.example:{TLS}/token");
    assert_eq!(good(office.run(&["--policy", &file], &["sh", "-c", &other])), "403");
}
