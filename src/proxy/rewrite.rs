//! Bodies that change on their way: values put in for placeholders, and values taken out of answers.
//!
//! A body is never held: of what came, only the end is kept back that may be the beginning of something to be replaced. Nor
//! does it swell: what many short placeholders stand for is sent bit by bit.
//!
//! What is kept back of an answer must not depend on whether it begins a value: a program that may choose words of the answer
//! would see by its cuts how much of a guess is right. So the last bytes of every piece are kept back, as many as could begin a
//! value, whatever they are.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use memchr::memmem;
use zeroize::Zeroizing;

use super::secret::{self, Escape, Place, Secret, Stray, Usable};

/// What is put into a body before that much of it is sent: a dozen bytes can stand for 16 KiB.
const MOST: usize = 64 * 1024;

/// What is done to the bytes of a body.
pub(super) enum Edit {
    Put(Put),
    Hide(Hide),
}

/// Puts values in for placeholders.
pub(super) struct Put {
    pub(super) all: Arc<[Secret]>,
    pub(super) here: Vec<bool>,
    pub(super) escape: Escape,
}

impl Put {
    /// How long a body of that length with so many placeholders can get at the most.
    pub(super) fn longest(&self, length: usize, placeholders: usize) -> usize {
        let here = self.all.iter().zip(&self.here).filter(|(_, here)| **here).map(|(secret, _)| secret);
        let value = here.map(Secret::longest_escaped).max().unwrap_or(0);
        length.saturating_add(placeholders.saturating_mul(value))
    }
}

/// Takes values out again: what an answer says of them is what the program said.
#[derive(Clone, Default)]
pub(super) struct Hide(Vec<Form>);

/// A text, and what stands in its place.
type Form = (Arc<Zeroizing<Vec<u8>>>, Bytes);

impl Hide {
    /// Hides a secret however an answer may spell it.
    pub(super) fn secret(&mut self, secret: &Secret) {
        // A few bytes turn up by chance, escaped or not. The first is the value itself.
        if secret.spellings().first().is_none_or(|value| value.len() < secret::SHORT) {
            return;
        }
        let instead = Bytes::copy_from_slice(secret.placeholder().as_bytes());
        for spelled in secret.spellings() {
            self.add(Arc::clone(spelled), instead.clone());
        }
    }

    /// Hides one text behind another.
    pub(super) fn form(&mut self, value: Zeroizing<Vec<u8>>, instead: &[u8]) {
        self.add(Arc::new(value), Bytes::copy_from_slice(instead));
    }

    fn add(&mut self, value: Arc<Zeroizing<Vec<u8>>>, instead: Bytes) {
        if value.len() >= secret::SHORT && !self.0.iter().any(|(known, _)| *known == value) {
            self.0.push((value, instead));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hides in header fields: in a value the text, and a field altogether that has it in its name.
    pub(super) fn in_headers(&self, headers: &mut HeaderMap) {
        if self.is_empty() {
            return;
        }
        let lower: Vec<_> = self.0.iter().map(|(value, _)| Zeroizing::new(value.to_ascii_lowercase())).collect();
        let named =
            |name: &HeaderName| lower.iter().any(|value| memmem::find(name.as_str().as_bytes(), value).is_some());
        for name in headers.keys().filter(|name| named(name)).cloned().collect::<Vec<_>>() {
            headers.remove(name);
        }
        for value in headers.values_mut() {
            if self.0.iter().all(|(hidden, _)| memmem::find(value.as_bytes(), hidden).is_none()) {
                continue;
            }
            let mut rewriter = Rewriter::new(Edit::Hide(self.clone()));
            let mut piece = Bytes::copy_from_slice(value.as_bytes());
            let mut told = Vec::new();
            // Neither can fail: nothing strays out of hiding, and what stands in was once a header's value.
            while let Ok(hidden) = rewriter.push(std::mem::take(&mut piece), true) {
                told.extend_from_slice(&hidden);
                if !rewriter.more() {
                    break;
                }
            }
            *value = HeaderValue::from_maybe_shared(Bytes::from(told)).unwrap_or(HeaderValue::from_static(""));
        }
    }

    /// Up to where it is certain what is to be hidden, whatever comes next. That is told by how many bytes there are, not by what they are; but no
    /// value has a control character, and so an event or a line that is whole need not wait.
    fn certain(&self, bytes: &[u8]) -> usize {
        let longest = self.0.iter().map(|(value, _)| value.len()).max().unwrap_or(1);
        let tail = bytes.len().saturating_sub(longest - 1);
        bytes[tail..].iter().rposition(u8::is_ascii_control).map_or(tail, |at| tail + at + 1)
    }
}

/// Edits a body piece by piece.
pub(super) struct Rewriter {
    edit: Edit,
    held: Zeroizing<Vec<u8>>,
    /// How much of `held` was sent all the same: it is there to see what it becomes with what follows.
    said: usize,
    more: bool,
}

impl Rewriter {
    pub(super) fn new(edit: Edit) -> Self {
        Self { edit, held: Zeroizing::default(), said: 0, more: false }
    }

    /// Whether there is more to be sent of what was taken already: an empty piece gets it.
    pub(super) fn more(&self) -> bool {
        self.more
    }

    /// Whether something is kept back until more comes.
    pub(super) fn waits(&self) -> bool {
        self.said < self.held.len()
    }

    /// Hides in trailers, too, what it hides.
    pub(super) fn in_trailers(&self, trailers: &mut HeaderMap) {
        if let Edit::Hide(hide) = &self.edit {
            hide.in_headers(trailers);
        }
    }

    /// Takes a piece, and gives back what can be sent; `all` of it at the end, or when nothing came for long. Should more come after that, of a value
    /// that was begun the rest is hidden.
    pub(super) fn push(&mut self, piece: Bytes, all: bool) -> Result<Bytes, Stray> {
        // A copy of what came is as good as what came, and that is in hyper's buffers: neither is wiped.
        let bytes = if self.held.is_empty() {
            piece
        } else {
            let mut both = BytesMut::with_capacity(self.held.len() + piece.len());
            both.extend_from_slice(&self.held);
            both.extend_from_slice(&piece);
            both.freeze()
        };
        let certain = match &self.edit {
            Edit::Put(_) => bytes.len(),
            Edit::Hide(hide) => hide.certain(&bytes),
        };
        let until = if all { bytes.len() } else { certain };
        let (mut found, mut ahead) = (Vec::new(), Vec::new());
        let (mut from, mut put) = (0, 0);
        self.more = false;
        while let Some(replacement) = self.next(&bytes, from, &mut ahead)?.filter(|next| next.at.start < until) {
            from = replacement.at.end;
            put += replacement.instead.len();
            found.push(replacement);
            if put >= MOST {
                self.more = true;
                break;
            }
        }
        let (end, keep) = match &self.edit {
            _ if self.more => (from, from),
            Edit::Hide(_) => (until.max(from), certain.max(from)),
            Edit::Put(_) if all => (until, until),
            Edit::Put(_) => {
                let end = from + secret::unfinished(&bytes[from..]);
                (end, end)
            }
        };
        let end = end.max(self.said);
        let sent = if found.is_empty() {
            bytes.slice(self.said..end)
        } else {
            // As long as it gets, so that no half of it stays behind in memory that was given back.
            let mut out = Zeroizing::new(Vec::with_capacity(end + put));
            let mut from = self.said;
            for Replacement { at, instead } in &found {
                out.extend_from_slice(bytes.get(from..at.start).unwrap_or_default());
                out.extend_from_slice(instead);
                from = at.end;
            }
            out.extend_from_slice(&bytes[from..end]);
            Bytes::from_owner(Wiped(out))
        };
        self.said = end - keep;
        self.held = Zeroizing::new(bytes[keep..].to_vec());
        Ok(sent)
    }

    /// The next thing to be replaced. `ahead` is where each hidden form stands next, kept from one to the next: looked for
    /// anew each time, a text full of one form would be read again and again for all others.
    fn next(&self, bytes: &[u8], from: usize, ahead: &mut Vec<usize>) -> Result<Option<Replacement>, Stray> {
        match &self.edit {
            Edit::Put(put) => {
                let bytes = &bytes[from..];
                let Some(found) = secret::find(bytes) else { return Ok(None) };
                let usable = Usable { all: &put.all, here: &put.here };
                let (_, secret) = usable.secret(found.name(bytes), Place::Body)?;
                let at = from + found.at.start..from + found.at.end;
                Ok(Some(Replacement { at, instead: secret.escaped(put.escape) }))
            }
            Edit::Hide(Hide(forms)) => {
                let first = ahead.is_empty();
                ahead.resize(forms.len(), 0);
                for (at, (value, _)) in ahead.iter_mut().zip(forms).filter(|(at, _)| first || **at < from) {
                    *at = memmem::find(&bytes[from..], value).map_or(usize::MAX, |found| from + found);
                }
                // Of those that begin at one place the longest.
                let next = ahead.iter().zip(forms).min_by_key(|(at, (value, _))| (**at, usize::MAX - value.len()));
                let next = next.filter(|(at, _)| **at < usize::MAX);
                Ok(next.map(|(&at, (value, instead))| Replacement {
                    at: at..at + value.len(),
                    instead: Zeroizing::new(instead.to_vec()),
                }))
            }
        }
    }
}

/// Edits a body as it comes, in these pieces: puts values in for the placeholders of `all`, or takes them out again. For the fuzz targets, which
/// have no connection.
#[doc(hidden)]
pub fn edit_body(all: &Arc<[Secret]>, escape: Option<&str>, pieces: &[&[u8]]) -> Result<Vec<u8>, String> {
    let edit = match escape {
        Some(kind) => {
            let escape = self::escape(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().map_err(|_| kind)?)]));
            Edit::Put(Put { all: all.clone(), here: vec![true; all.len()], escape })
        }
        None => {
            let mut hide = Hide::default();
            all.iter().for_each(|secret| hide.secret(secret));
            Edit::Hide(hide)
        }
    };
    let mut rewriter = Rewriter::new(edit);
    let mut out = Vec::new();
    let ends = std::iter::repeat_n(false, pieces.len()).chain([true]);
    for (piece, last) in pieces.iter().chain([&&[][..]]).zip(ends) {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            out.extend(rewriter.push(std::mem::take(&mut piece), last).map_err(|stray| stray.to_string())?);
            if !rewriter.more() {
                break;
            }
        }
    }
    Ok(out)
}

/// Where something stands, and what is put in its place.
struct Replacement {
    at: Range<usize>,
    instead: Zeroizing<Vec<u8>>,
}

/// Bytes that are wiped when the last who holds them lets go.
pub(super) struct Wiped(pub(super) Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// How values are escaped in a body of that type.
pub(super) fn escape(headers: &HeaderMap) -> Escape {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/x-www-form-urlencoded" => Escape::Percent,
        "application/json" => Escape::Json,
        kind if kind.ends_with("+json") || kind.ends_with("/x-ndjson") => Escape::Json,
        _ => Escape::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::secret::tests::secret;
    use super::*;

    fn pieces(edit: Edit, text: &[u8], cuts: &[usize]) -> Result<Vec<u8>, Stray> {
        let mut rewriter = Rewriter::new(edit);
        let mut out = Vec::new();
        let mut push = |piece: &[u8], last: bool| {
            let mut piece = Bytes::copy_from_slice(piece);
            loop {
                out.extend(rewriter.push(std::mem::take(&mut piece), last)?);
                if !rewriter.more() {
                    return Ok(());
                }
            }
        };
        let mut from = 0;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
        cuts.sort_unstable();
        for cut in cuts {
            push(&text[from..cut], false)?;
            from = cut;
        }
        push(&text[from..], true)?;
        Ok(out)
    }

    fn put() -> Edit {
        let all: Arc<[Secret]> =
            Arc::new([secret("T=env:T,to=a.example,in=body", "the \"value\""), secret("U=env:U,to=b.example", "o")]);
        Edit::Put(Put { all, here: vec![true, false], escape: Escape::Json })
    }

    fn hide() -> Hide {
        let mut hide = Hide::default();
        hide.secret(&secret("T=env:T,to=a.example", "the value is this"));
        hide.form(Zeroizing::new(b"dGhlIHZhbHVl".to_vec()), b"cGxhY2Vob2xkZXI=");
        hide
    }

    #[test]
    fn as_much_is_held_as_could_begin_a_value() {
        let push = |rewriter: &mut Rewriter, text: &'static str| rewriter.push(Bytes::from(text), false).unwrap();
        let mut rewriter = Rewriter::new(Edit::Hide(hide()));
        // No value has a control character in it.
        for text in ["data: 1\n\n", "data: the valley\n\n", "data: the val\n\n"] {
            assert_eq!(push(&mut rewriter, text), text);
            assert!(!rewriter.waits());
        }
        // The longest form is `the%20value%20is%20this`, of 23 bytes.
        assert_eq!(push(&mut rewriter, "123456789 123456789 123456789"), "1234567");
        assert_eq!(push(&mut rewriter, "the value is this"), "89 123456789 1234");
        assert_eq!(push(&mut rewriter, "\n"), "56789ringfence-T-secret\n");
        let mut rewriter = Rewriter::new(put());
        assert_eq!(push(&mut rewriter, "{\"a\":1}\n"), "{\"a\":1}\n");
    }

    #[test]
    fn no_cut_tells_how_much_of_a_guess_is_right() {
        let cuts = |pieces: &[&str]| -> Vec<usize> {
            let mut rewriter = Rewriter::new(Edit::Hide(hide()));
            let mut push =
                |piece: &str, all| rewriter.push(Bytes::copy_from_slice(piece.as_bytes()), all).unwrap().len();
            let mut cuts = Vec::new();
            for piece in pieces {
                cuts.extend([
                    push(piece, false),
                    push("|", false),
                    push("", true),
                    push(piece, false),
                    push(piece, true),
                ]);
            }
            cuts
        };
        for form in ["the value is this", "the%20value%20is%20this", "dGhlIHZhbHVl"] {
            for length in 1..form.len() {
                let right = &form[..length];
                let wrong = format!("{}#", &right[..length - 1]);
                let among =
                    |guess: &str| [guess.to_owned(), format!("{}{guess}", "x".repeat(40)), format!("{guess}yyyy")];
                let (right, wrong) = (among(right), among(&wrong));
                assert_eq!(
                    cuts(&right.each_ref().map(String::as_str)),
                    cuts(&wrong.each_ref().map(String::as_str)),
                    "{right:?}"
                );
            }
        }
    }

    #[test]
    fn after_a_silence_the_rest_of_a_value_is_hidden() {
        let mut rewriter = Rewriter::new(Edit::Hide(hide()));
        let mut push = |text: &'static str, all| rewriter.push(Bytes::from(text), all).unwrap();
        assert_eq!(push("say the val", false), "");
        assert_eq!(push("", true), "say the val");
        assert_eq!(push("ue is ", false), "");
        assert_eq!(push("", true), "ue is ");
        assert_eq!(push("this, and the", false), "ringfence-T-secret");
        assert_eq!(push("", true), ", and the");
        assert_eq!(push("\n", false), "\n");
    }

    #[test]
    fn a_body_of_placeholders_does_not_swell() {
        let value = "v".repeat(Secret::LONGEST);
        let all: Arc<[Secret]> = Arc::new([secret("T=env:T,to=a.example,in=body", &value)]);
        let put = Put { all, here: vec![true], escape: Escape::Json };
        let text = "ringfence-T-secret".repeat(1000);
        assert!(put.longest(text.len(), secret::at_most(text.as_bytes())) >= 1000 * value.len());
        let mut rewriter = Rewriter::new(Edit::Put(put));
        let (mut piece, mut total, mut pieces) = (Bytes::from(text), 0, 0);
        loop {
            let sent = rewriter.push(std::mem::take(&mut piece), true).unwrap();
            assert!(sent.len() <= MOST + value.len() && sent.iter().all(|byte| *byte == b'v'));
            (total, pieces) = (total + sent.len(), pieces + 1);
            if !rewriter.more() {
                break;
            }
        }
        assert_eq!((total, pieces), (1000 * value.len(), 251));
    }

    #[test]
    fn an_echo_says_what_the_program_said() {
        let mut headers = HeaderMap::new();
        headers.insert("x-echo", HeaderValue::from_static("Bearer the value is this, the%20value%20is%20this"));
        headers.append("x-echo", HeaderValue::from_static("Basic dGhlIHZhbHVl"));
        headers.insert("x-other", HeaderValue::from_static("untouched"));
        headers.insert("x-dghlihzhbhvl", HeaderValue::from_static("in the name"));
        hide().in_headers(&mut headers);
        let values: Vec<_> = headers.get_all("x-echo").iter().collect();
        assert_eq!(values, ["Bearer ringfence-T-secret, ringfence-T-secret", "Basic cGxhY2Vob2xkZXI="]);
        assert_eq!((&headers["x-other"], headers.len()), (&HeaderValue::from_static("untouched"), 3));
    }

    #[test]
    fn a_body_is_escaped_as_its_type_wants() {
        for (kind, expected) in [
            ("application/json; charset=utf-8", Escape::Json),
            ("application/vnd.api+json", Escape::Json),
            ("application/x-www-form-urlencoded", Escape::Percent),
            ("text/plain", Escape::None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(escape(&headers), expected);
        }
    }

    proptest! {
        /// However a body is cut, what comes of it is what comes of the whole.
        #[test]
        fn cuts_change_nothing(
            words in prop::collection::vec(prop::sample::select(vec![
                "ringfence-T-secret", "ringfence-", "T", "-secret", "the value is this", "the value ", "dGhlIHZhbHVl", "x", "ri",
            ]), 0..12),
            cuts in prop::collection::vec(0usize..400, 0..8),
        ) {
            let text = words.concat();
            prop_assert_eq!(pieces(put(), text.as_bytes(), &cuts), pieces(put(), text.as_bytes(), &[]));
            let hidden = pieces(Edit::Hide(hide()), text.as_bytes(), &cuts).unwrap();
            prop_assert_eq!(&hidden, &pieces(Edit::Hide(hide()), text.as_bytes(), &[]).unwrap());
            prop_assert!(memmem::find(&hidden, b"the value is this").is_none());
        }

        /// However long an answer pauses, no value is in what comes of it, and all else is.
        #[test]
        fn silences_show_no_value(
            words in prop::collection::vec(prop::sample::select(vec![
                "the value is this", "the value ", "is this", "dGhlIHZhbHVl", "dGhl", "x", "\n", "a much longer text than any",
            ]), 0..12),
            pause in any::<u64>(),
        ) {
            let text = words.concat();
            let mut rewriter = Rewriter::new(Edit::Hide(hide()));
            let mut out = Vec::new();
            for (at, byte) in text.bytes().enumerate() {
                out.extend(rewriter.push(Bytes::from(vec![byte]), pause >> (at % 64) & 1 == 1).unwrap());
            }
            out.extend(rewriter.push(Bytes::new(), true).unwrap());
            prop_assert!(!rewriter.waits());
            for value in [&b"the value is this"[..], b"dGhlIHZhbHVl"] {
                prop_assert!(memmem::find(&out, value).is_none(), "{}", out.escape_ascii());
            }
            if !text.contains("the value is this") && !text.contains("dGhlIHZhbHVl") {
                prop_assert_eq!(String::from_utf8(out).unwrap(), text);
            }
        }
    }
}
