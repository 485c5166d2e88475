//! Enumerations that the kernel numbers.

/// Declares an enumeration whose values have numbers on the wire, both ways.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$item])* $variant,)* }

        impl $name {
            /// Every one, in the order of their numbers.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The number that stands for it in netlink attributes.
            pub const fn to_wire(self) -> u32 {
                match self { $($name::$variant => $number,)* }
            }

            /// What a netlink attribute's number stands for.
            pub const fn from_wire(number: u32) -> Option<$name> {
                match number {
                    $($number => Some($name::$variant),)*
                    _ => None,
                }
            }
        }
    };
}
pub(in crate::nft) use numbered;
