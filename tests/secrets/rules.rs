//! Rules about methods and paths, on real requests.

use crate::office::{CLEAR, Office, TLS, good};
use crate::world::oracle;

#[test]
fn only_what_a_rule_covers_goes_on() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let rules = [
        format!("GET|POST https://web.example:{TLS}/echo/*"),
        format!("GET http://web.example:{CLEAR}/open"),
        "other.example".to_owned(),
    ];
    let flags: Vec<&str> = rules.iter().flat_map(|rule| ["--allow", rule]).collect();
    let ask = |more: &str, url: &str| {
        let command = format!("curl -sS --path-as-is --max-time 20 -w '%{{http_code}}' {more} '{url}'");
        let shown = good(office.run(&flags, &["sh", "-c", &command]));
        (shown[shown.len() - 3..].to_owned(), shown, office.heard())
    };
    let https = format!("https://web.example:{TLS}");
    let http = format!("http://web.example:{CLEAR}");
    for (more, url, line) in [
        ("", format!("{https}/echo/a%2b%61?q=../.."), "GET /echo/a%2Ba?q=../.. HTTP/1.1"),
        ("--http1.1 -d x=1", format!("{https}/echo/"), "POST /echo/ HTTP/1.1"),
        ("", format!("{http}/open"), "GET /open HTTP/1.1"),
        ("--proxytunnel", format!("{http}/open"), "GET /open HTTP/1.1"),
        ("-X DELETE", format!("https://other.example:{TLS}/echo/../x"), "DELETE /echo/../x HTTP/1.1"),
    ] {
        // The last is in a tunnel that nobody looks into: its own certificate is what curl sees.
        let more = if url.contains("other") {
            format!("{more} --cacert {}", office.path("trusted.ca").display())
        } else {
            more.to_owned()
        };
        let (status, shown, heard) = ask(&more, &url);
        assert!(status == "200" || status == "401", "{url}: {shown}");
        assert!(heard.contains(line), "{url}: {heard}");
    }
    for (more, url) in [
        ("-X DELETE", format!("{https}/echo/a")),
        ("-I", format!("{https}/echo/a")),
        ("", format!("{https}/open")),
        ("", format!("{https}/echo")),
        ("", format!("{https}/ECHO/a")),
        ("", format!("{https}/echo/../open")),
        ("", format!("{https}/echo/%2e%2e/open")),
        ("", format!("{https}/echo/%252e%252e/open")),
        ("", format!("{https}/echo/..%2fopen")),
        ("", format!("{https}/echo/..;/open")),
        ("", format!("{https}//echo/a")),
        ("", format!("{https}/echo/%5c..%5copen")),
        ("-H 'X-HTTP-Method-Override: DELETE'", format!("{https}/echo/a")),
        ("-H 'X-Original-URL: /open'", format!("{https}/echo/a")),
        ("-H 'X_HTTP_Method_Override: DELETE'", format!("{https}/echo/a")),
        ("-H 'X-Original_URL: /open'", format!("{https}/echo/a")),
        ("", format!("{https}/echo/;/a")),
        ("", format!("{https}/echo/%3Bx=y/a")),
        ("", format!("{https}/echo/%c0%ae%c0%ae/open")),
        ("--request-target https://other.example/echo/a", format!("{https}/echo/a")),
        ("", format!("{http}/echo/a")),
        ("-d x", format!("{http}/open")),
        ("--proxytunnel", format!("{http}/echo/a")),
    ] {
        let (status, shown, heard) = ask(more, &url);
        assert!(["403", "421"].contains(&status.as_str()), "{more} {url}: {shown}");
        assert_eq!(heard, "", "{more} {url}");
    }
    let (_, shown, _) = ask("-X DELETE", &format!("{https}/echo/a"));
    let hint = format!("--allow 'DELETE https://web.example:{TLS}/echo/a' would allow it");
    assert!(shown.contains(&hint), "{shown}");
}

#[test]
fn tls_in_a_tunnel_is_for_the_tunnels_host() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let ca = office.path("trusted.ca").display().to_string();
    // Asks for web.example by the tunnel's name, and for other.example inside of it: fronting.
    let ask = |flags: &[&str], url: &str, connect_to: &str| {
        let command = format!("curl -sS --max-time 20 --cacert {ca} --connect-to '{connect_to}' {url}");
        let output = office.run(flags, &["sh", "-c", &command]);
        (output.status.code(), crate::world::text(&output.stdout), crate::world::text(&output.stderr))
    };
    let fronted = format!("https://other.example:{TLS}/open");
    let to = format!("other.example:{TLS}:web.example:{TLS}");
    let events = office.path("events").display().to_string();
    let (status, shown, error) = ask(&["--allow", "web.example", "--events", &events], &fronted, &to);
    assert_eq!(status, Some(35), "{shown}{error}");
    assert!(error.contains("unrecognized name") && office.heard().is_empty(), "{error}");
    let events = std::fs::read_to_string(events).unwrap();
    assert!(events.contains("\"hint\":\"TLS in its tunnel was for other.example\""), "{events}");
    let (status, shown, error) = ask(&["--allow", "web.example", "--sni", "any"], &fronted, &to);
    assert_eq!((status, shown.as_str()), (Some(0), "open\n"), "{error}");
    // Where the tunnel is looked into, it is never for another.
    let flags = ["--allow", "web.example", "--sni", "any", "--credential", "TOKEN=env:API_TOKEN,to=web.example:8443"];
    office.heard();
    let (status, _, error) = ask(&flags, &fronted, &to);
    assert_eq!(status, Some(35), "{error}");
    assert!(office.heard().is_empty());
    // The right name passes untouched, with the origin's own certificate.
    let (status, shown, error) = ask(&["--allow", "web.example"], &format!("https://web.example:{TLS}/open"), "");
    assert_eq!((status, shown.as_str()), (Some(0), "open\n"), "{error}");
}
