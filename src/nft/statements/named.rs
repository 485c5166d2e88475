//! Stateful objects, by their names or as maps have them.

use super::*;
use crate::nft::{ElementData, Expr, KnownObject, MapTo, ObjectName, Register};

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident = $kind:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub struct $name(pub ObjectName);

        impl MapValue for $name {
            fn map_to() -> MapTo {
                MapTo::Object(KnownObject::$kind.into())
            }
            fn data(&self) -> Result<ElementData, StatementError> {
                Ok(ElementData::Object(self.0.clone()))
            }
        }
    )*};
}

objects! {
    /// Name of a counter, as what a map leads to.
    CounterName = Counter;
    /// Name of a quota, as what a map leads to.
    QuotaName = Quota;
    /// Name of a limit, as what a map leads to.
    LimitName = Limit;
    /// Name of a conntrack helper, as what a map leads to.
    CtHelperName = CtHelper;
}

/// Statements that use stateful objects.
impl<F: TableFamily> Statements<F> {
    fn object(self, kind: KnownObject, name: &ObjectName) -> Self {
        self.effect([Expr::ObjectRef { kind: kind.into(), name: name.clone() }])
    }

    fn object_by<T: Fields<F>>(self, fields: &T, map: Looked) -> Self {
        self.with(|lowering| {
            let (loads, set) = lowering.look(&fields.parts(), map)?;
            lowering.effect(loads.into_iter().chain([Expr::ObjectMap { set, sreg: Register::FIRST }]));
            Ok(())
        })
    }

    /// Counts with a named counter. nft(8): `counter name NAME`.
    pub fn counter_named(self, name: &ObjectName) -> Self {
        self.object(KnownObject::Counter, name)
    }

    /// Counts with the counter that a map has; ends the rule when it has nothing. nft(8): `counter name FIELD map @MAP`.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringfence::nft::ObjectName;
    /// use ringfence::nft::statements::{CounterName, Inet, TCP_DPORT, TableOf};
    ///
    /// let (web, mail) = (CounterName(ObjectName::new("web")?), CounterName(ObjectName::new("mail")?));
    /// let input = TableOf::<Inet>::new("guard")?.chain("input")?;
    /// // counter name tcp dport map { 25 : "mail", 80 : "web", 443 : "web" }
    /// let rule = input.rule().counter_by(TCP_DPORT, [(25, mail), (80, web.clone()), (443, web)]).done()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn counter_by<T: Fields<F>>(self, fields: T, map: impl Mapping<T::Key, CounterName>) -> Self {
        self.object_by(&fields, map.look())
    }

    /// Uses a named quota. nft(8): `quota name NAME`.
    pub fn quota_named(self, name: &ObjectName) -> Self {
        self.object(KnownObject::Quota, name)
    }

    /// Uses the quota that a map has; ends the rule when it has nothing. nft(8): `quota name FIELD map @MAP`.
    pub fn quota_by<T: Fields<F>>(self, fields: T, map: impl Mapping<T::Key, QuotaName>) -> Self {
        self.object_by(&fields, map.look())
    }

    /// Uses a named limit. nft(8): `limit name NAME`.
    pub fn limit_named(self, name: &ObjectName) -> Self {
        self.object(KnownObject::Limit, name)
    }

    /// Uses the limit that a map has; ends the rule when it has nothing. nft(8): `limit name FIELD map @MAP`.
    pub fn limit_by<T: Fields<F>>(self, fields: T, map: impl Mapping<T::Key, LimitName>) -> Self {
        self.object_by(&fields, map.look())
    }

    /// Gives the flow a helper. nft(8): `ct helper set NAME`.
    pub fn ct_helper_named(self, name: &ObjectName) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.object(KnownObject::CtHelper, name)
    }

    /// Gives the flow the helper that a map has; ends the rule when it has nothing. nft(8): `ct helper set FIELD map @MAP`.
    pub fn ct_helper_by<T: Fields<F>>(self, fields: T, map: impl Mapping<T::Key, CtHelperName>) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.object_by(&fields, map.look())
    }

    /// Gives the flow time-outs. nft(8): `ct timeout set NAME`.
    pub fn ct_timeout_named(self, name: &ObjectName) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.object(KnownObject::CtTimeout, name)
    }

    /// Has conntrack expect another flow. nft(8): `ct expectation set NAME`.
    pub fn ct_expectation_named(self, name: &ObjectName) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.object(KnownObject::CtExpectation, name)
    }

    /// Answers SYNs for the server. nft(8): `synproxy name NAME`.
    pub fn synproxy_named(self, name: &ObjectName) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.object(KnownObject::Synproxy, name)
    }
}
