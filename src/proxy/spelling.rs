//! How a value is written by those who say it again: in a URL, in JSON, in HTML. There are many ways, for encoders do not agree on what has to be
//! escaped.

use zeroize::Zeroizing;

use crate::policy::request_rule::is_unreserved;

/// What a URL's encoder leaves as it is.
const IN_URLS: [fn(u8) -> bool; 7] = [
    is_unreserved,
    // Python's quote; paths in general.
    |byte| is_unreserved(byte) || byte == b'/',
    // ECMAScript's encodeURIComponent, encodeURI.
    |byte| is_unreserved(byte) || b"!'()*".contains(&byte),
    |byte| is_unreserved(byte) || b"!'()*;,/?:@&=+$#".contains(&byte),
    // Go's paths.
    |byte| is_unreserved(byte) || b"$&+,/:;=@".contains(&byte),
    // Forms: the URL standard, PHP.
    |byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte),
    |byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte),
];

/// What encoders of JSON write as `\u0000`, though they need not: none; Go and Rails; Gson; .NET; PHP, asked for it.
const IN_JSON: [&str; 5] = ["", "<>&", "<>&='", "\"&'+<>`", "<>&'\""];

/// What is written for other characters than `&`, `<`, `>` in HTML and XML.
const IN_HTML: [&[(char, &str)]; 9] = [
    &[],
    &[('"', "&quot;")],
    // Python; Rails, .NET; PHP; XML; Go, twice.
    &[('"', "&quot;"), ('\'', "&#x27;")],
    &[('"', "&quot;"), ('\'', "&#39;")],
    &[('"', "&quot;"), ('\'', "&#039;")],
    &[('"', "&quot;"), ('\'', "&apos;")],
    &[('"', "&#34;"), ('\'', "&#39;")],
    &[('"', "&#34;"), ('\'', "&#39;"), ('+', "&#43;")],
    // Mustache and its kin.
    &[('"', "&quot;"), ('\'', "&#39;"), ('/', "&#x2F;"), ('`', "&#x60;"), ('=', "&#x3D;")],
];

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Every way of writing a value, itself the first.
pub(super) fn all(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut all = vec![Zeroizing::new(value.to_vec())];
    let mut add = |spelled: Zeroizing<Vec<u8>>| {
        if !all.contains(&spelled) {
            all.push(spelled);
        }
    };
    for digits in [UPPER, LOWER] {
        for stays in IN_URLS {
            add(in_url(value, stays, digits, false));
            add(in_url(value, stays, digits, true));
        }
    }
    // The others are written in characters.
    let Ok(text) = std::str::from_utf8(value) else { return all };
    for digits in [LOWER, UPPER] {
        for escaped in IN_JSON {
            for (slash, ascii) in [(false, false), (false, true), (true, false), (true, true)] {
                add(in_json(text, escaped, slash, ascii, digits));
            }
        }
    }
    for entities in IN_HTML {
        add(in_html(text, entities));
    }
    all
}

/// Room for the longest way, so that no half of it stays behind in memory that was given back.
fn room(value: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(value.len() * 6))
}

fn in_url(value: &[u8], stays: fn(u8) -> bool, digits: &[u8; 16], plus: bool) -> Zeroizing<Vec<u8>> {
    let mut out = room(value);
    for &byte in value {
        match byte {
            b' ' if plus => out.push(b'+'),
            byte if stays(byte) => out.push(byte),
            byte => out.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]),
        }
    }
    out
}

fn in_json(text: &str, escaped: &str, slash: bool, ascii: bool, digits: &[u8; 16]) -> Zeroizing<Vec<u8>> {
    let mut out = room(text.as_bytes());
    for character in text.chars() {
        match character {
            character if escaped.contains(character) || ascii && !character.is_ascii() => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let digit = |shift: u32| digits[usize::from(*unit >> shift & 15)];
                    out.extend([b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
                }
            }
            '"' | '\\' => out.extend([b'\\', character as u8]),
            '/' if slash => out.extend(b"\\/"),
            character => out.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    out
}

fn in_html(text: &str, entities: &[(char, &str)]) -> Zeroizing<Vec<u8>> {
    let mut out = room(text.as_bytes());
    for character in text.chars() {
        let entity = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;")];
        match entity.iter().chain(entities).find(|(known, _)| *known == character) {
            Some((_, entity)) => out.extend(entity.bytes()),
            None => out.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_however_it_is_written() {
        let value = "abc/def+ghi=jkl&mno<p\"q'r s\u{e4}\u{1f600}";
        let all = all(value.as_bytes());
        for spelled in [
            value,
            // Python: quote, quote_plus, json.dumps, html.escape.
            "abc/def%2Bghi%3Djkl%26mno%3Cp%22q%27r%20s%C3%A4%F0%9F%98%80",
            "abc%2Fdef%2Bghi%3Djkl%26mno%3Cp%22q%27r+s%C3%A4%F0%9F%98%80",
            r#"abc/def+ghi=jkl&mno<p\"q'r s\u00e4\ud83d\ude00"#,
            "abc/def+ghi=jkl&amp;mno&lt;p&quot;q&#x27;r s\u{e4}\u{1f600}",
            // Java's URLEncoder and ECMAScript's encodeURIComponent; in lower case, as .NET writes them.
            "abc%2Fdef%2Bghi%3Djkl%26mno%3Cp%22q'r%20s%C3%A4%F0%9F%98%80",
            "abc%2fdef%2bghi%3djkl%26mno%3cp%22q%27r+s%c3%a4%f0%9f%98%80",
            // JSON of PHP, of Go, of .NET.
            r#"abc\/def+ghi=jkl&mno<p\"q'r s\u00e4\ud83d\ude00"#,
            "abc/def+ghi=jkl\\u0026mno\\u003cp\\\"q'r s\u{e4}\u{1f600}",
            r"abc/def\u002Bghi=jkl\u0026mno\u003Cp\u0022q\u0027r s\u00E4\uD83D\uDE00",
            // HTML of Go, of PHP.
            "abc/def&#43;ghi=jkl&amp;mno&lt;p&#34;q&#39;r s\u{e4}\u{1f600}",
            "abc/def+ghi=jkl&amp;mno&lt;p&quot;q&#039;r s\u{e4}\u{1f600}",
        ] {
            assert!(all.iter().any(|known| **known == spelled.as_bytes()), "{spelled}");
        }
        assert!(all.iter().all(|spelled| spelled.len() <= value.len() * 6));
    }

    #[test]
    fn most_values_are_written_in_one_way() {
        assert_eq!(super::all(b"ghp_7f3a90c4e1-x.y").len(), 1);
        // No text: it is written in URLs alone.
        assert!(super::all(b"\xff\xfe").iter().all(|spelled| spelled.starts_with(b"\xff") || spelled[0] == b'%'));
    }
}
