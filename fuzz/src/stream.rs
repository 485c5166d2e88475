//! What passes the proxy piece by piece: the beginning of a tunnel, and bodies.

use std::sync::Arc;

use ringfence::parsers::{Opening, edit_body, read_hello};
use ringfence::proxy::Secret;
use rustls::server::Acceptor;

/// Reads the first bytes of a tunnel. What was said once stays said, however much comes after it, and a server that finds a name in them finds the
/// one that was vetted.
pub fn hello(bytes: &[u8]) {
    let whole = read_hello(bytes);
    let first = (0..bytes.len()).map(|end| read_hello(&bytes[..end])).find(|opening| *opening != Opening::More);
    assert!(first.is_none_or(|first| first == whole), "{}", bytes.escape_ascii());
    let mut server = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() && server.read_tls(&mut rest).is_ok_and(|read| read > 0) {
        match server.accept() {
            Ok(None) => {}
            Err(_) => return,
            Ok(Some(accepted)) => {
                let asked = accepted.client_hello().server_name().map(str::to_owned);
                match (&whole, asked) {
                    // What can be read in more ways than one is refused.
                    (Opening::Malformed, _) => {}
                    (Opening::Tls(ours), Some(theirs)) => {
                        assert!(
                            ours.as_ref().is_some_and(|ours| ours.eq_ignore_ascii_case(&theirs)),
                            "{ours:?} {theirs}"
                        );
                    }
                    // An address, or what is no name, counts as none there.
                    (Opening::Tls(_), None) => {}
                    (other, theirs) => panic!("{other:?} is a hello for {theirs:?}"),
                }
                return;
            }
        }
    }
}

const VALUE: &str = "v&l=ue \"\\";
const OTHER: &str = "another-value";

thread_local! {
    static SECRETS: Arc<[Secret]> = [("T=env:T,to=a.example,in=body", VALUE), ("U=env:U,to=b.example,in=body", OTHER)]
        .map(|(credential, value)| Secret::new(credential.parse().expect("a credential"), value.into()).expect("a value"))
        .into();
}

/// Edits a body. The first byte says how, the next eight where it is cut: wherever that is, what comes out is the same. What is put in is what
/// stands for it, and nothing else has changed; what is taken out is gone.
pub fn rewrite(bytes: &[u8]) {
    let Some((&[how, ref cuts @ ..], body)) = bytes.split_first_chunk::<9>() else { return };
    let mut cuts = cuts.map(|cut| usize::from(cut).min(body.len()));
    cuts.sort_unstable();
    let ends = cuts.iter().copied().chain([body.len()]);
    let pieces: Vec<&[u8]> = [0].into_iter().chain(cuts).zip(ends).map(|(from, to)| &body[from..to]).collect();
    SECRETS.with(|secrets| {
        let kinds = ["text/plain", "application/json", "application/x-www-form-urlencoded"];
        let kind = kinds.get(usize::from(how % 4)).copied();
        let edited = edit_body(secrets, kind, &pieces);
        assert_eq!(edited, edit_body(secrets, kind, &[body]), "{:?}", pieces);
        let Some(kind) = kind else {
            let hidden = edited.expect("nothing strays out of hiding");
            let spelled = ["v%26l%3Due%20%22%5C", r#"v&l=ue \"\\"#, r#"v\u0026l=ue \"\\"#, r"v&amp;l=ue &quot;\"];
            for value in [VALUE, OTHER].into_iter().chain(spelled) {
                assert!(!contains(&hidden, value.as_bytes()), "{}", hidden.escape_ascii());
            }
            return;
        };
        let value = match kind {
            "application/json" => r#"v&l=ue \"\\"#,
            "application/x-www-form-urlencoded" => "v%26l%3Due%20%22%5C",
            _ => VALUE,
        };
        match edited {
            Ok(edited) => {
                let expected = replace(
                    &replace(body, b"ringfence-T-secret", value.as_bytes()),
                    b"ringfence-U-secret",
                    OTHER.as_bytes(),
                );
                assert_eq!(edited.escape_ascii().to_string(), expected.escape_ascii().to_string());
            }
            Err(stray) => assert!(!stray.contains(VALUE) && !stray.contains(OTHER), "{stray}"),
        }
    });
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn replace(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        match rest.strip_prefix(what) {
            Some(after) => {
                out.extend(with);
                rest = after;
            }
            None => {
                out.push(rest[0]);
                rest = &rest[1..];
            }
        }
    }
    out
}
