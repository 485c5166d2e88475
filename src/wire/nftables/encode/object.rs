//! libnftnl's objects, owned: freed when dropped, every setter's answer checked, every length bounded before the call.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

use mnl::mnl_sys::libc::nlmsghdr;
use nftnl::nftnl_sys as sys;

use crate::wire::nftables::user_data::MAX_LEN as MAX_USER_DATA;

/// Why an object cannot be encoded.
pub(super) type Fault = Cow<'static, str>;

const NO_MEMORY: Fault = Cow::Borrowed("no memory left");

/// The longest text that goes to libnftnl, in bytes, without the final NUL: the kernel's longest name.
pub(super) const MAX_TEXT: usize = 255;

/// Text with a final NUL, on the stack.
pub(super) struct CText([u8; MAX_TEXT + 1]);

impl CText {
    pub fn new(text: &str) -> Result<Self, Fault> {
        let mut bytes = [0; MAX_TEXT + 1];
        // Past this length libnftnl would truncate in silence; at a NUL the kernel would see another name.
        match bytes.get_mut(..text.len()) {
            Some(room) if text.len() <= MAX_TEXT && !text.contains('\0') => room.copy_from_slice(text.as_bytes()),
            _ => return Err(Cow::Owned(format!("`{}` is too long or has a NUL byte", text.escape_debug()))),
        }
        Ok(Self(bytes))
    }

    pub fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }
}

/// Turns a setter's answer into a result.
fn done(answer: i32, what: &'static str) -> Result<(), Fault> {
    if answer < 0 { Err(Cow::Owned(format!("libnftnl takes no {what}"))) } else { Ok(()) }
}

macro_rules! owned {
    ($(#[$doc:meta])* $name:ident, $raw:ident, $free:ident) => {
        $(#[$doc])*
        pub(super) struct $name(NonNull<sys::$raw>);

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the pointer came from the matching allocator, is owned by `self` alone, and is not used again.
                unsafe { sys::$free(self.0.as_ptr()) }
            }
        }
    };
}

macro_rules! allocated {
    ($name:ident, $alloc:ident) => {
        impl $name {
            pub fn new() -> Result<Self, Fault> {
                // SAFETY: takes nothing and gives a new object or NULL.
                NonNull::new(unsafe { sys::$alloc() }).map(Self).ok_or(NO_MEMORY)
            }
        }
    };
}

macro_rules! text_setter {
    ($name:ident, $set:ident) => {
        impl $name {
            pub fn text(&mut self, attribute: u32, what: &'static str, text: &str) -> Result<(), Fault> {
                let text = CText::new(text)?;
                // SAFETY: the object is alive; the text ends in a NUL and is copied before the call returns.
                done(unsafe { sys::$set(self.0.as_ptr(), attribute as u16, text.as_ptr()) }, what)
            }
        }
    };
}

macro_rules! bytes_setter {
    ($name:ident, $set:ident, $max:expr) => {
        impl $name {
            pub fn bytes(&mut self, attribute: u32, what: &'static str, bytes: &[u8]) -> Result<(), Fault> {
                // libnftnl copies register data into 64 bytes of its own without looking at the length.
                if bytes.len() > $max {
                    return Err(Cow::Owned(format!("{what} of {} bytes, more than {}", bytes.len(), $max)));
                }
                let (data, len) = (bytes.as_ptr().cast::<c_void>(), bytes.len() as u32);
                // SAFETY: the object is alive; `len` bytes can be read at `data` and fit, as checked above; they are copied.
                done(unsafe { sys::$set(self.0.as_ptr(), attribute as u16, data, len) }, what)
            }
        }
    };
}

macro_rules! number_setter {
    ($name:ident, $method:ident, $number:ty, $set:ident) => {
        impl $name {
            /// The number's width must be that of the attribute in libnftnl, which copies as many bytes as its own field has.
            pub fn $method(&mut self, attribute: u32, value: $number) {
                // SAFETY: the object is alive; the number is passed by value.
                unsafe { sys::$set(self.0.as_ptr(), attribute as u16, value) }
            }
        }
    };
}

macro_rules! payload {
    ($name:ident, $build:ident) => {
        impl $name {
            /// Appends the object's attributes to a message.
            ///
            /// # Safety
            ///
            /// `message` points to a netlink message behind which there is zeroed room for all attributes that were set:
            /// libnftnl does not check.
            pub unsafe fn put(&self, message: *mut nlmsghdr) {
                // SAFETY: the object is alive; the caller vouches for the message.
                unsafe { sys::$build(message.cast(), self.0.as_ptr()) }
            }
        }
    };
}

/// `NFT_DATA_VALUE_MAXLEN`.
const MAX_DATA: usize = 64;

owned!(
    /// A table.
    Table, nftnl_table, nftnl_table_free
);
allocated!(Table, nftnl_table_alloc);
text_setter!(Table, nftnl_table_set_str);
bytes_setter!(Table, nftnl_table_set_data, MAX_USER_DATA);
number_setter!(Table, u32, u32, nftnl_table_set_u32);
payload!(Table, nftnl_table_nlmsg_build_payload);

owned!(
    /// A chain.
    Chain, nftnl_chain, nftnl_chain_free
);
allocated!(Chain, nftnl_chain_alloc);
text_setter!(Chain, nftnl_chain_set_str);
bytes_setter!(Chain, nftnl_chain_set_data, MAX_USER_DATA);
number_setter!(Chain, u32, u32, nftnl_chain_set_u32);
number_setter!(Chain, i32, i32, nftnl_chain_set_s32);
payload!(Chain, nftnl_chain_nlmsg_build_payload);

impl Chain {
    /// Sets the devices of a chain that has several.
    pub fn devices<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
        let texts = names.map(CText::new).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<*const c_char> = texts.iter().map(CText::as_ptr).collect();
        pointers.push(std::ptr::null());
        // SAFETY: the chain is alive; the array ends in NULL, its texts end in NUL, and all are copied before the call returns.
        let answer = unsafe {
            sys::nftnl_chain_set_array(self.0.as_ptr(), sys::NFTNL_CHAIN_DEVICES as u16, pointers.as_mut_ptr())
        };
        done(answer, "devices")
    }
}

owned!(
    /// A set, without its elements.
    Set, nftnl_set, nftnl_set_free
);
allocated!(Set, nftnl_set_alloc);
text_setter!(Set, nftnl_set_set_str);
bytes_setter!(Set, nftnl_set_set_data, MAX_USER_DATA);
number_setter!(Set, u32, u32, nftnl_set_set_u32);
number_setter!(Set, u64, u64, nftnl_set_set_u64);
payload!(Set, nftnl_set_nlmsg_build_payload);

owned!(
    /// An element of a set. One serves for any number of elements: what the last one had is unset, not allocated anew.
    Element, nftnl_set_elem, nftnl_set_elem_free
);
allocated!(Element, nftnl_set_elem_alloc);
number_setter!(Element, u32, u32, nftnl_set_elem_set_u32);
number_setter!(Element, u64, u64, nftnl_set_elem_set_u64);

impl Element {
    pub fn key(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes(sys::NFTNL_SET_ELEM_KEY, "key", bytes, MAX_DATA)
    }

    pub fn key_end(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes(sys::NFTNL_SET_ELEM_KEY_END, "end of a range", bytes, MAX_DATA)
    }

    pub fn data(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes(sys::NFTNL_SET_ELEM_DATA, "value", bytes, MAX_DATA)
    }

    pub fn user_data(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes(sys::NFTNL_SET_ELEM_USERDATA, "user data", bytes, MAX_USER_DATA)
    }

    pub fn text(&mut self, attribute: u32, what: &'static str, text: &str) -> Result<(), Fault> {
        let text = CText::new(text)?;
        // SAFETY: the element is alive; the text ends in a NUL and is copied before the call returns.
        done(unsafe { sys::nftnl_set_elem_set_str(self.0.as_ptr(), attribute as u16, text.as_ptr()) }, what)
    }

    fn bytes(&mut self, attribute: u32, what: &'static str, bytes: &[u8], max: usize) -> Result<(), Fault> {
        if bytes.len() > max {
            return Err(Cow::Owned(format!("{what} of {} bytes, more than {max}", bytes.len())));
        }
        let (data, len) = (bytes.as_ptr().cast::<c_void>(), bytes.len() as u32);
        // SAFETY: the element is alive; `len` bytes can be read at `data` and fit, as checked above; they are copied.
        done(unsafe { sys::nftnl_set_elem_set(self.0.as_ptr(), attribute as u16, data, len) }, what)
    }

    pub fn unset(&mut self, attribute: u32) {
        // SAFETY: the element is alive; what the attribute owns is freed.
        unsafe { sys::nftnl_set_elem_unset(self.0.as_ptr(), attribute as u16) }
    }

    /// Appends the element's attributes to a message.
    ///
    /// # Safety
    ///
    /// As with the other objects: room behind `message`.
    pub unsafe fn put(&self, message: *mut nlmsghdr) {
        // SAFETY: the element is alive; the caller vouches for the message.
        unsafe { sys::nftnl_set_elem_nlmsg_build_payload(message.cast(), self.0.as_ptr()) };
    }
}

owned!(
    /// A rule, without its expressions.
    Rule, nftnl_rule, nftnl_rule_free
);
allocated!(Rule, nftnl_rule_alloc);
text_setter!(Rule, nftnl_rule_set_str);
bytes_setter!(Rule, nftnl_rule_set_data, MAX_USER_DATA);
number_setter!(Rule, u64, u64, nftnl_rule_set_u64);
payload!(Rule, nftnl_rule_nlmsg_build_payload);

owned!(
    /// An expression.
    Expression, nftnl_expr, nftnl_expr_free
);
text_setter!(Expression, nftnl_expr_set_str);
bytes_setter!(Expression, nftnl_expr_set, MAX_DATA);
number_setter!(Expression, u8, u8, nftnl_expr_set_u8);
number_setter!(Expression, u16, u16, nftnl_expr_set_u16);
number_setter!(Expression, u32, u32, nftnl_expr_set_u32);
number_setter!(Expression, u64, u64, nftnl_expr_set_u64);

impl Expression {
    /// An expression by the kernel's name.
    pub fn new(name: &'static CStr) -> Result<Self, Fault> {
        // SAFETY: the name ends in a NUL; gives a new expression, or NULL when there is none of that name or no memory.
        let expression = NonNull::new(unsafe { sys::nftnl_expr_alloc(name.as_ptr()) });
        expression.map(Self).ok_or_else(|| Cow::Owned(format!("libnftnl makes no expression {name:?}")))
    }

    /// Appends its name and data to a message.
    ///
    /// # Safety
    ///
    /// As with the other objects: room behind `message`.
    pub unsafe fn put(&self, message: *mut nlmsghdr) {
        // SAFETY: the expression is alive; the caller vouches for the message.
        unsafe { sys::nftnl_expr_build_payload(message.cast(), self.0.as_ptr()) }
    }
}
