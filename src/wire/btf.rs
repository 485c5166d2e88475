//! The kernel's description of its own structs, and what of it a program needs.
//!
//! All of it is megabytes, of which a program that looks at a few structs needs some kilobytes. [`Btf::cut`] walks over it once and gives
//! back a description of nothing but those structs and what lies within them.
//!
//! # References
//!
//! `Documentation/bpf/btf.rst`; `linux/btf.h`: `struct btf_header`, `struct btf_type`

use std::collections::HashMap;

use super::netlink::{DecodeError, array};

#[doc(alias = "BTF_MAGIC")]
const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// Magic number, version, flags, the header's length, then where types and strings lie behind it.
const HEADER: usize = 24;

/// A type's name, its kind and how much follows, its size or the type that it refers to.
const TYPE: usize = 12;

// `BTF_KIND_*`
const INT: u8 = 1;
const PTR: u8 = 2;
const ARRAY: u8 = 3;
const STRUCT: u8 = 4;
const UNION: u8 = 5;
const ENUM: u8 = 6;
const FWD: u8 = 7;
const TYPEDEF: u8 = 8;
const VOLATILE: u8 = 9;
const CONST: u8 = 10;
const RESTRICT: u8 = 11;
const FUNC: u8 = 12;
const FUNC_PROTO: u8 = 13;
const VAR: u8 = 14;
const DATASEC: u8 = 15;
const FLOAT: u8 = 16;
const DECL_TAG: u8 = 17;
const TYPE_TAG: u8 = 18;
const ENUM64: u8 = 19;

/// Where a type is noted, so that any other is found within as many steps.
const STRIDE: u32 = 32;
/// The longest name: the kernel's own limit for those of BTF.
#[doc(alias = "KSYM_NAME_LEN")]
const LONGEST: usize = 512;
/// How deep types may lie in one another. The kernel's lie less than 20 deep.
const DEEPEST: u32 = 64;
/// The most bytes that may be cut out.
const MOST: usize = 4 << 20;

/// A description of types that lies in `'a`.
#[derive(Debug, Clone, Copy)]
pub struct Btf<'a> {
    types: &'a [u8],
    types_at: usize,
    strings: &'a [u8],
    strings_at: usize,
}

/// A type as it stands there.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    /// Kind, how many members, and whether their offsets have a bit field's size in them.
    info: u32,
    /// Size, or the type that is referred to.
    third: u32,
    /// What follows, as much as its kind has.
    rest: &'a [u8],
    offset: usize,
}

impl Type<'_> {
    fn kind(&self) -> u8 {
        kind(self.info)
    }
}

fn kind(info: u32) -> u8 {
    (info >> 24 & 0x1f) as u8
}

/// How many bytes follow a type, and how many make an item of it.
fn trailing(info: u32) -> Option<(usize, usize)> {
    let many = (info & 0xffff) as usize;
    Some(match kind(info) {
        INT | VAR | DECL_TAG => (4, 4),
        PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => (0, 4),
        ARRAY => (12, 12),
        STRUCT | UNION | DATASEC | ENUM64 => (12 * many, 12),
        ENUM | FUNC_PROTO => (8 * many, 8),
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_ne_bytes(*four))
}

/// A name without what tells two structs of the same name in a program apart: `sock___old` means `sock`.
fn flavorless(name: &[u8]) -> &[u8] {
    name.windows(3).position(|three| three == b"___").and_then(|end| name.get(..end)).unwrap_or(name)
}

impl<'a> Btf<'a> {
    /// Takes the bytes apart as far as the header goes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when they are no BTF of this machine's byte order, or end early, or their first name is not the empty one.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let header: [u8; HEADER] = array("header of BTF", bytes, 0, 0)?;
        let [low, high, version, ..] = header;
        let magic = u16::from_ne_bytes([low, high]);
        if (magic, version) != (MAGIC, VERSION) {
            let have = format!("{magic:#06x}, version {version}");
            return Err(DecodeError::new("header of BTF", 0, "0xeb9f, version 1", have));
        }
        let long = word(&header, 4) as usize;
        if long < HEADER {
            return Err(DecodeError::short("header of BTF", 4, HEADER, long));
        }
        let section = |what, at| {
            let (start, length) = (long.checked_add(word(&header, at) as usize), word(&header, at + 4) as usize);
            let found = start.and_then(|start| Some((bytes.get(start..start.checked_add(length)?)?, start)));
            found.ok_or_else(|| DecodeError::short(what, at, length, bytes.len()))
        };
        let (types, types_at) = section("types of BTF", 8)?;
        let (strings, strings_at) = section("strings of BTF", 16)?;
        // What has no name has the one at 0.
        if strings.first() != Some(&0) {
            return Err(DecodeError::new("strings of BTF", strings_at, "an empty one first", "none"));
        }
        Ok(Self { types, types_at, strings, strings_at })
    }

    /// Names of the structs and unions.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when a type does not lie where it should.
    pub fn structs(&self) -> Result<Vec<&'a [u8]>, DecodeError> {
        let mut names = Vec::new();
        let mut at = 0;
        while at < self.types.len() {
            let (found, next) = self.next(at)?;
            if matches!(found.kind(), STRUCT | UNION) {
                names.push(self.string(found.name)?);
            }
            at = next;
        }
        names.retain(|name| !name.is_empty());
        Ok(names)
    }

    /// Cuts out every struct and union that has one of the names, all that lies in it by value, and no more: pointers lead nowhere.
    ///
    /// What comes out is BTF again, in which a type stands behind those that it refers to. Numbers of types are others than before. A
    /// name counts up to `___`, as it does when programs are fitted to a kernel.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when something does not lie where it should, types contain themselves, or it would be more than any kernel's.
    pub fn cut(&self, names: &[&[u8]]) -> Result<Vec<u8>, DecodeError> {
        let mut wanted: Vec<&[u8]> =
            names.iter().map(|name| flavorless(name)).filter(|name| !name.is_empty()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut index = Vec::with_capacity(self.types.len() / (20 * STRIDE as usize));
        let mut roots = Vec::new();
        // Number 0 is void, and stands nowhere.
        let (mut at, mut id) = (0, 1u32);
        while at < self.types.len() {
            if (id - 1).is_multiple_of(STRIDE) {
                index.push(at);
            }
            let (found, next) = self.next(at)?;
            if matches!(found.kind(), STRUCT | UNION) && found.name != 0 {
                let name = flavorless(self.string(found.name)?);
                if wanted.binary_search(&name).is_ok() {
                    roots.push(id);
                }
            }
            // Each is at least twelve bytes long, and there are less than 4 GiB of them.
            (at, id) = (next, id + 1);
        }
        let mut cutting =
            Cutting { btf: *self, index, taken: HashMap::new(), types: Vec::new(), strings: vec![0], count: 0 };
        for root in roots {
            cutting.take(root, 0)?;
        }
        Ok(cutting.finish())
    }

    /// The type that begins at `at`, and where the next one does.
    fn next(&self, at: usize) -> Result<(Type<'a>, usize), DecodeError> {
        let offset = self.types_at + at;
        let head: &[u8; TYPE] = self.types.get(at..).and_then(<[u8]>::first_chunk).ok_or_else(|| {
            DecodeError::short("type of BTF", offset, TYPE, self.types.len() - at.min(self.types.len()))
        })?;
        let info = word(head, 4);
        let (length, _) = trailing(info)
            .ok_or_else(|| DecodeError::new("type of BTF", offset, "kind 1 to 19", kind(info).to_string()))?;
        let rest = at + TYPE;
        let next = rest + length;
        let rest = self
            .types
            .get(rest..next)
            .ok_or_else(|| DecodeError::short("type of BTF", offset, TYPE + length, self.types.len() - at))?;
        Ok((Type { name: word(head, 0), info, third: word(head, 8), rest, offset }, next))
    }

    fn string(&self, at: u32) -> Result<&'a [u8], DecodeError> {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        let rest = rest.get(..LONGEST).unwrap_or(rest);
        let name = rest.iter().position(|byte| *byte == 0).and_then(|end| rest.get(..end));
        let offset = self.strings_at + at as usize;
        name.ok_or_else(|| DecodeError::new("name in BTF", offset, "NUL within 512 bytes", "none"))
    }
}

/// What has been cut out so far.
struct Cutting<'a> {
    btf: Btf<'a>,
    /// Where each of the [`STRIDE`]th types begins.
    index: Vec<usize>,
    /// Number there, to number here and how deep it goes; `None` while what lies in it is taken.
    taken: HashMap<u32, Option<(u32, u32)>>,
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl<'a> Cutting<'a> {
    /// Takes a type and all that lies in it; gives its number here, and how deep it goes.
    fn take(&mut self, id: u32, depth: u32) -> Result<(u32, u32), DecodeError> {
        if id == 0 {
            return Ok((0, 0));
        }
        match self.taken.get(&id) {
            Some(Some(taken)) => return Ok(*taken),
            Some(None) => return Err(self.wrong(id, "a type that does not contain itself", "one that does")),
            None => {}
        }
        if depth > DEEPEST {
            return Err(self.wrong(id, "types less deep in one another", "more than 64"));
        }
        self.taken.insert(id, None);
        let found = self.find(id)?;
        let mut deepest = 0;
        // Its numbers of types and names, first in the type itself and then in what follows.
        let mut follow = |cutting: &mut Self, id| -> Result<u32, DecodeError> {
            let (id, deep) = cutting.take(id, depth + 1)?;
            deepest = deepest.max(deep + 1);
            Ok(id)
        };
        let mut third = found.third;
        let mut rest = found.rest.to_vec();
        match found.kind() {
            INT | FLOAT | FWD => {}
            PTR => third = 0,
            TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => third = follow(self, third)?,
            ARRAY => {
                for at in [0, 4] {
                    let inner = follow(self, word(&rest, at))?;
                    put(&mut rest, at, inner);
                }
            }
            STRUCT | UNION => {
                for at in (0..rest.len()).step_by(12) {
                    let name = self.name(word(&rest, at))?;
                    let inner = follow(self, word(&rest, at + 4))?;
                    put(&mut rest, at, name);
                    put(&mut rest, at + 4, inner);
                }
            }
            ENUM | ENUM64 => {
                let step = if found.kind() == ENUM { 8 } else { 12 };
                for at in (0..rest.len()).step_by(step) {
                    let name = self.name(word(&rest, at))?;
                    put(&mut rest, at, name);
                }
            }
            other => {
                let have = format!("kind {other}");
                return Err(DecodeError::new("type of BTF", found.offset, "something that has a size", have));
            }
        }
        if deepest > DEEPEST {
            return Err(self.wrong(id, "types less deep in one another", "more than 64"));
        }
        let name = self.name(found.name)?;
        for word in [name, found.info, third] {
            self.types.extend(word.to_ne_bytes());
        }
        self.types.extend(rest);
        if self.types.len() + self.strings.len() > MOST {
            return Err(self.wrong(id, "types of less than 4 MiB", "more"));
        }
        self.count += 1;
        self.taken.insert(id, Some((self.count, deepest)));
        Ok((self.count, deepest))
    }

    fn find(&self, id: u32) -> Result<Type<'a>, DecodeError> {
        let missing = || self.wrong(id, "a type", "none of that number");
        let before = id.checked_sub(1).ok_or_else(missing)?;
        let mut at = *self.index.get((before / STRIDE) as usize).ok_or_else(missing)?;
        for _ in 0..before % STRIDE {
            (_, at) = self.btf.next(at)?;
        }
        if at >= self.btf.types.len() {
            return Err(missing());
        }
        self.btf.next(at).map(|(found, _)| found)
    }

    /// Where a name stands here.
    fn name(&mut self, at: u32) -> Result<u32, DecodeError> {
        let name = self.btf.string(at)?;
        if name.is_empty() {
            return Ok(0);
        }
        if self.strings.len() > MOST {
            return Err(DecodeError::new("names in BTF", self.btf.strings_at + at as usize, "less than 4 MiB", "more"));
        }
        // At most 4 MiB and one name.
        let here = self.strings.len() as u32;
        self.strings.extend(name);
        self.strings.push(0);
        Ok(here)
    }

    fn finish(self) -> Vec<u8> {
        // Both are at most 4 MiB and one type of 65535 members, or one name.
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut bytes = Vec::with_capacity(HEADER + self.types.len() + self.strings.len());
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([VERSION, 0]);
        for word in [HEADER as u32, 0, types, types, strings] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(self.types);
        bytes.extend(self.strings);
        bytes
    }

    fn wrong(&self, id: u32, need: &'static str, have: &'static str) -> DecodeError {
        DecodeError::new(format!("type {id} of BTF"), self.btf.types_at, need, have)
    }
}

fn put(bytes: &mut [u8], at: usize, word: u32) {
    if let Some(four) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *four = word.to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BTF of these types, and these names.
    fn btf(types: &[&[u32]], names: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.concat().into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([VERSION, 0]);
        for word in [HEADER as u32, 0, types.len() as u32, types.len() as u32, names.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(names);
        bytes
    }

    fn info(kind: u8, many: u32) -> u32 {
        u32::from(kind) << 24 | many
    }

    /// `\0a\0b\0sock___old\0other\0`
    const NAMES: &[u8] = b"\0a\0b\0sock___old\0other\0";

    fn some() -> Vec<u8> {
        btf(
            &[
                // 1: a function, which is skipped
                &[1, info(FUNC, 0), 0],
                // 2: struct other
                &[16, info(STRUCT, 1), 8, 1, 3, 0],
                // 3: pointer to struct other
                &[0, info(PTR, 0), 2],
                // 4: struct sock___old { struct other a; b[2]: pointer }
                &[5, info(STRUCT, 2), 24, 1, 2, 0, 3, 5, 64],
                // 5: array of two pointers
                &[0, info(ARRAY, 0), 0, 3, 6, 2],
                // 6: int
                &[3, info(INT, 0), 4, 32],
                // 7: nobody's
                &[16, info(UNION, 0), 0],
            ],
            NAMES,
        )
    }

    #[test]
    fn a_struct_is_cut_out_with_what_lies_in_it() {
        let whole = some();
        let whole = Btf::parse(&whole).unwrap();
        assert_eq!(whole.structs().unwrap(), [&b"other"[..], b"sock___old", b"other"]);
        let cut = whole.cut(&[b"sock___new", b"nobody", b""]).unwrap();
        let cut = Btf::parse(&cut).unwrap();
        let words: Vec<u32> = cut.types.chunks_exact(4).map(|four| word(four, 0)).collect();
        let name = |at| cut.string(at).unwrap();
        // The pointer, to nothing; struct other; int; the array; the struct.
        let lengths = [3, 6, 4, 6, 9];
        let mut rest = words.as_slice();
        let types = lengths.map(|length| rest.split_off(..length).unwrap());
        assert!(rest.is_empty());
        assert_eq!(types[0], [0, info(PTR, 0), 0]);
        assert_eq!((name(types[1][0]), types[1][4]), (&b"other"[..], 1));
        assert_eq!(types[2][3], 32);
        assert_eq!(types[3], [0, info(ARRAY, 0), 0, 1, 3, 2]);
        assert_eq!((name(types[4][0]), name(types[4][3]), types[4][4]), (&b"sock___old"[..], &b"a"[..], 2));
        assert_eq!((name(types[4][6]), types[4][7], types[4][8]), (&b"b"[..], 4, 64));
        // And once more it is the same.
        assert_eq!(cut.structs().unwrap().len(), 2);
    }

    #[test]
    fn types_of_the_same_name_are_all_there() {
        let whole = some();
        let cut = Btf::parse(&whole).unwrap().cut(&[b"other"]).unwrap();
        assert_eq!(Btf::parse(&cut).unwrap().structs().unwrap(), [b"other", b"other"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |types: &[&[u32]]| {
            let bytes = btf(types, NAMES);
            Btf::parse(&bytes).unwrap().cut(&[b"a"]).unwrap_err().to_string()
        };
        assert!(Btf::parse(&btf(&[], b"a\0")).unwrap_err().to_string().contains("an empty one first"));
        assert!(Btf::parse(&btf(&[], b"")).is_err());
        let a = [1, info(STRUCT, 1), 8, 0, 2, 0];
        assert!(refused(&[&[1, info(STRUCT, 1), 8, 0, 1, 0]]).contains("contain itself"));
        assert!(refused(&[&a, &[0, info(CONST, 0), 1]]).contains("contain itself"));
        assert!(refused(&[&a]).contains("none of that number"));
        assert!(refused(&[&a, &[0, info(FUNC_PROTO, 0), 0]]).contains("kind 13"));
        assert!(refused(&[&[1, info(20, 0), 0]]).contains("kind 1 to 19"));
        assert!(refused(&[&[1, info(STRUCT, 2), 8, 0, 0, 0]]).contains("36 bytes"));
        assert!(refused(&[&[99, info(STRUCT, 0), 0]]).contains("NUL"));
        assert!(refused(&[&[1, info(STRUCT, 0)]]).contains("12 bytes"));
        let chain: Vec<[u32; 3]> = (0..100).map(|id| [0, info(CONST, 0), id + 3]).collect();
        let mut deep: Vec<&[u32]> = vec![&a];
        deep.extend(chain.iter().map(<[u32; 3]>::as_slice));
        assert!(refused(&deep).contains("more than 64"));
        // The same from the other end, where each struct finds the one before it already taken.
        let chain: Vec<[u32; 6]> = (0..100).map(|id| [1, info(STRUCT, 1), 8, 0, id, 0]).collect();
        assert!(refused(&chain.iter().map(<[u32; 6]>::as_slice).collect::<Vec<_>>()).contains("more than 64"));
    }

    #[test]
    fn bytes_that_end_anywhere_or_are_changed_anywhere_do_no_harm() {
        let whole = some();
        for end in 0..whole.len() {
            assert!(Btf::parse(&whole[..end]).is_err());
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut other = whole.clone();
                other[at] = byte;
                let Ok(parsed) = Btf::parse(&other) else { continue };
                let _ = parsed.structs();
                if let Ok(cut) = parsed.cut(&[b"sock", b"other", b"a"]) {
                    Btf::parse(&cut).unwrap().structs().unwrap();
                }
            }
        }
    }
}
