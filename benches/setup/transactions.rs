//! Large transactions: ours, the same bytes sent again by hand, and `nft -f` with the same text. And to read them again: ours, and `nft -j list ruleset`.

use std::net::Ipv4Addr;
use std::time::Instant;

use netlink_sys::protocols::NETLINK_NETFILTER;
use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables::Socket;
use ringfence::nft::{
    Chain, ChainName, CmpOp, Data, Datatype, Element, Expr, Family, KeyType, PayloadBase, Register, Rule, Ruleset, Set,
    SetName, Table as NftTable, TableId, TableName, Verdict,
};
use ringfence::wire::nftables;

use super::Outcome;
use super::ordinary::{feed, installed};
use super::raw;
use super::table::{Row, Table};
use super::time::Times;

/// Numbers of things, each with the number of rounds.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub rules: &'static [(usize, usize)],
    pub elements: &'static [(usize, usize)],
    /// Rules that are read.
    pub read: &'static [(usize, usize)],
}

pub fn run(sizes: &Sizes) -> Outcome<()> {
    let mut table = Table::new("transactions", ["nft -f", "the same bytes by hand"]);
    for (kind, sizes) in [(Kind::Rules, sizes.rules), (Kind::Elements, sizes.elements)] {
        for (size, rounds) in sizes {
            table.row(compare(&format!("{size} {}", kind.name()), &kind.make(*size)?, *rounds)?);
        }
    }
    table.print();
    let mut table = Table::new("a namespace's ruleset, read", ["nft -j list ruleset", ""]);
    for (size, rounds) in sizes.read {
        table.row(read(&format!("{size} rules"), &Kind::Rules.make(*size)?, *rounds)?);
    }
    table.print();
    Ok(())
}

/// What a ruleset is full of.
#[derive(Clone, Copy)]
pub enum Kind {
    Rules,
    Elements,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Elements => "elements",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Rules, Self::Elements].into_iter().find(|kind| kind.name() == name)
    }

    pub fn make(self, count: usize) -> Outcome<Ruleset> {
        match self {
            Self::Rules => rules(count),
            Self::Elements => elements(count),
        }
    }
}

fn read(name: &str, ruleset: &Ruleset, rounds: usize) -> Outcome<Row> {
    let (mut ours, mut nft) = <(Times, Option<Times>)>::default();
    let (netns, socket) = Netns::create_with(Socket::open)?;
    let mut socket = socket?;
    socket.commit(&ruleset.create())?;
    for round in 0..=rounds {
        let start = Instant::now();
        let found = socket.ruleset()?;
        ours.note(round > 0, start);
        if found.rules.len() != ruleset.rules.len() {
            return Err(format!("{} rules were read", found.rules.len()).into());
        }
        if installed("nft") {
            let start = Instant::now();
            netns.run(|| feed("nft", &["-j", "list", "ruleset"], ""))??;
            nft.get_or_insert_default().note(round > 0, start);
        }
    }
    Ok(Row::new(name, ours).other(nft.as_ref(), "no `nft` here"))
}

fn compare(name: &str, ruleset: &Ruleset, rounds: usize) -> Outcome<Row> {
    let transaction = ruleset.create();
    let bytes = nftables::encode(&transaction)?;
    let text = ruleset.syntax();
    if let Some(unshown) = text.unshown().first() {
        return Err(format!("nft can't be given the same: {unshown}").into());
    }
    let (mut ours, mut by_hand, mut nft) = <(Times, Times, Option<Times>)>::default();
    for round in 0..=rounds {
        // A namespace each, so that none finds what another left.
        let (_netns, socket) = Netns::create_with(Socket::open)?;
        let mut socket = socket?;
        let start = Instant::now();
        socket.commit(&transaction)?;
        ours.note(round > 0, start);

        let (_netns, socket) = Netns::create_with(|| raw::open(NETLINK_NETFILTER))?;
        let socket = socket?;
        let start = Instant::now();
        raw::deliver(&socket, bytes.as_bytes())?;
        by_hand.note(round > 0, start);

        if installed("nft") {
            let netns = Netns::new()?;
            let start = Instant::now();
            netns.run(|| feed("nft", &["-f", "-"], text.as_str()))??;
            nft.get_or_insert_default().note(round > 0, start);
        }
    }
    Ok(Row::new(name, ours).other(nft.as_ref(), "no `nft` here").other(Some(&by_hand), ""))
}

fn id() -> Outcome<TableId> {
    Ok(TableId { family: Family::Inet, name: TableName::new("bench")? })
}

fn empty() -> Outcome<Ruleset> {
    let table = NftTable::new(id()?);
    Ok(Ruleset { tables: vec![table], ..Ruleset::default() })
}

/// nft(8): `ip daddr A tcp dport P counter accept`, as ten expressions.
fn rules(count: usize) -> Outcome<Ruleset> {
    let mut ruleset = empty()?;
    let (table, chain) = (id()?, ChainName::new("c")?);
    ruleset.chains.push(Chain::new(&table, &chain.clone()));
    let load = |base, offset, len| Expr::Payload { base, offset, len, dreg: Register::FIRST };
    let equals = |data| Expr::Cmp { op: CmpOp::Eq, sreg: Register::FIRST, data };
    for number in 0..count {
        ruleset.rules.push(
            Rule::new(&table, &chain)
                .nfproto(Family::Ip)
                .expr(load(PayloadBase::Network, 16, 4))
                .expr(equals(Data::ipv4(address(number))))
                .l4proto(6)
                .expr(load(PayloadBase::Transport, 2, 2))
                .expr(equals(Data::be16(443)))
                .counter()
                .verdict(Verdict::Accept),
        );
    }
    Ok(ruleset)
}

fn elements(count: usize) -> Outcome<Ruleset> {
    let mut ruleset = empty()?;
    let (table, set) = (id()?, SetName::new("s")?);
    let key = KeyType(vec![Datatype::Ipv4Addr, Datatype::InetProto, Datatype::InetService]);
    ruleset.sets.push(Set { size: Some(count as u32), ..Set::new(&table, &set, key) });
    let mut elements = Vec::with_capacity(count);
    for number in 0..count {
        elements.push(Element::new(Data::concat(&[Data::ipv4(address(number)), Data::byte(6), Data::be16(443)])?));
    }
    ruleset.elements.push((table, set, elements));
    Ok(ruleset)
}

/// No packet is ever sent there.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number as u32)
}
