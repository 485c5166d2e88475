//! Settings that are one word of a few.

/// Reads an enum from its words, and shows it as them. Whoever writes another word is told which there are.
macro_rules! words {
    ($name:ident, $expected:literal: $($word:literal => $variant:ident),+ $(,)?) => {
        impl ::std::str::FromStr for $name {
            type Err = $crate::policy::PolicyError;

            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::policy::PolicyError::new($expected, text)),
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)+
                })
            }
        }
    };
}

pub(super) use words;
