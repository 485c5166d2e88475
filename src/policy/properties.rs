//! What holds for every text, whoever wrote it.

use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;

use proptest::prelude::*;

use super::*;

/// Texts that come near enough to the grammar to get past its first checks.
fn near_miss() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z0-9_-]{0,5}",
        "[0-9]{1,6}",
        Just("203.0.113.9".to_owned()),
        Just("2001:db8::9".to_owned()),
        Just("::ffff:127.0.0.1".to_owned()),
        Just("http://".to_owned()),
        Just("CAP_".to_owned()),
        r"[\[\].:*/,=@%#?]",
        any::<char>().prop_map(String::from),
    ];
    prop_oneof![any::<String>(), prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())]
}

fn name() -> impl Strategy<Value = String> {
    "([a-zA-Z0-9_]([a-zA-Z0-9_-]{0,8}[a-zA-Z0-9_])?\\.){0,3}[a-zA-Z]([a-zA-Z0-9-]{0,8}[a-zA-Z])?\\.?"
        .prop_filter("0x… is a number", |name| !name.to_ascii_lowercase().contains("0x"))
}

fn address() -> impl Strategy<Value = String> {
    any::<std::net::IpAddr>().prop_map(|address| match address {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
    })
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![name(), address()]
}

fn range() -> impl Strategy<Value = String> {
    let v4 = (any::<[u8; 4]>(), 0u8..=32)
        .prop_map(|(address, length)| ipnet::Ipv4Net::new_assert(address.into(), length).trunc().to_string());
    let v6 = (any::<[u8; 16]>(), 0u8..=128)
        .prop_map(|(address, length)| format!("[{}]", ipnet::Ipv6Net::new_assert(address.into(), length).trunc()));
    prop_oneof![v4, v6]
}

fn with_port(host: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (host, 1u16..).prop_map(|(host, port)| format!("{host}:{port}"))
}

/// Holds a type to `parse(display(x)) == x`, and its errors to one printable line.
fn round_trip<T: PartialEq + Debug + Display>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, PolicyError>,
) -> Result<bool, TestCaseError> {
    match parse(text) {
        Ok(value) => {
            let again = parse(&value.to_string());
            prop_assert_eq!(again.as_ref(), Ok(&value), "{:?} shown as {}", text, value);
            Ok(true)
        }
        Err(error) => {
            let line = error.to_string();
            prop_assert!(!line.contains(char::is_control), "{:?}", line);
            prop_assert!(line.chars().count() < 1000, "{}", line);
            Ok(false)
        }
    }
}

fn round_trips(text: &str) -> Result<(), TestCaseError> {
    round_trip(text, DnsName::from_str)?;
    round_trip(text, Host::from_str)?;
    round_trip(text, HostPattern::from_str)?;
    round_trip(text, AllowEntry::from_str)?;
    round_trip(&format!("GET {text}"), AllowEntry::from_str)?;
    round_trip(text, Credential::from_str)?;
    round_trip(&format!("A=env:B,to={text}"), Credential::from_str)?;
    round_trip(text, |text| Endpoint::parse(text, Transport::Udp))?;
    // Shown with its port, which a direct host does not take back.
    let _ = Endpoint::parse_host(text);
    round_trip(text, ProxyAt::from_str)?;
    round_trip(text, DnsMode::from_str)?;
    round_trip(text, DnsGrace::from_str)?;
    round_trip(text, PoolPrefix::from_str)?;
    round_trip(text, Capability::from_str)?;
    round_trip(text, User::from_str)?;
    round_trip(text, EnvVar::from_str)?;
    round_trip(text, SandboxName::from_str)?;
    if text.parse::<ProxyUrl>().is_ok_and(|proxy| proxy.credentials.is_none()) {
        round_trip(text, ProxyUrl::from_str)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_value_that_shows_as_itself_or_one_line_of_error(text in near_miss()) {
        round_trips(&text)?;
    }

    #[test]
    fn names_and_addresses_show_as_themselves(host in host(), range in range(), port in 1u16..) {
        prop_assert!(round_trip(&host, Host::from_str)?, "{}", host);
        round_trips(&host)?;
        round_trips(&range)?;
        round_trips(&format!("{host}:{port}"))?;
        round_trips(&format!("{range}:{port}"))?;
        round_trips(&format!("*.{host}:{port}"))?;
        round_trip(&format!("*.{host}"), HostPattern::from_str)?;
    }

    #[test]
    fn named_endpoints_are_always_accepted(endpoint in with_port(name())) {
        prop_assume!(!endpoint.contains("localhost"));
        prop_assert!(round_trip(&endpoint, |text| Endpoint::parse(text, Transport::Tcp))?, "{}", endpoint);
        prop_assert!(round_trip(&endpoint, AllowEntry::from_str)?, "{}", endpoint);
        prop_assert!(round_trip(&endpoint, ProxyUrl::from_str)?, "{}", endpoint);
    }

    #[test]
    fn credentials_come_back_and_are_never_shown(user in "[^:\\p{C}]{1,20}", password in "\\PC{0,20}", end in "[a-z]{3}:([0-9]{1,6}|x)?") {
        let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let (hidden_user, hidden) = (escaped(&user), escaped(&password));
        let text = format!("http://{hidden_user}:{hidden}@{end}");
        match text.parse::<ProxyUrl>() {
            Ok(proxy) => {
                prop_assert_eq!(format!("{proxy}"), format!("http://<redacted>@{end}"));
                let debug = format!("{proxy:?}");
                prop_assert!(!debug.contains(&hidden_user), "{}", debug);
                let credentials = proxy.credentials.unwrap();
                prop_assert_eq!((credentials.user(), credentials.password()), (user.as_str(), password.as_str()));
            }
            Err(error) => {
                let shown = format!("{error} {error:?}");
                prop_assert!(!shown.contains(&hidden_user), "{}", shown);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_file_or_one_line_of_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = Layer::from_toml(&bytes, Path::new("p.toml")) {
            prop_assert!(!error.to_string().contains(char::is_control));
        }
    }

    #[test]
    fn any_value_of_any_key_is_taken_or_refused_alike_by_flag_and_file(index in 0..Key::ALL.len(), text in near_miss()) {
        let key = Key::ALL[index];
        let mut layer = Layer::new();
        let flag = layer.flag(key, &text);
        let quoted = toml::Value::String(text.clone()).to_string();
        let file = Layer::from_toml(format!("{key} = {quoted}").as_bytes(), Path::new("p.toml"));
        if matches!(key, Key::Audit | Key::SharePid | Key::DropCaps) {
            prop_assert!(file.is_err());
        } else {
            let reason = |error: PolicyError| (error.expected, error.found, error.reason);
            prop_assert_eq!(flag.map_err(reason).err(), file.map(drop).map_err(reason).err());
        }
        let _ = Settings::from_layers([layer]);
    }

    #[test]
    fn merging_is_deterministic_and_forgets_only_whole_keys(
        strong in prop::collection::vec(with_port(name()), 0..4),
        weak in prop::collection::vec(with_port(name()), 0..4),
        other in prop::collection::vec(with_port(name()), 0..4),
    ) {
        let layer = |direct: &[String], udp: &[String]| {
            let mut layer = Layer::new();
            for text in direct.iter().filter(|text| !text.contains("localhost")) {
                layer.flag(Key::Direct, text).unwrap();
            }
            for text in udp.iter().filter(|text| !text.contains("localhost")) {
                layer.flag(Key::DirectUdp, text).unwrap();
            }
            layer
        };
        let merge = || Settings::from_layers([layer(&strong, &[]), layer(&weak, &other)]).unwrap();
        let merged = merge();
        prop_assert_eq!(&merged, &merge());
        prop_assert_eq!(serde_json::to_string(&merged).unwrap(), serde_json::to_string(&merge()).unwrap());
        let winner = if strong.is_empty() { &weak } else { &strong };
        prop_assert_eq!(merged.policy.direct, Settings::from_layers([layer(winner, &other)]).unwrap().policy.direct);
    }
}
