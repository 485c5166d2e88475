//! What expressions can load: bytes of the packet, and what the kernel knows about it.

use serde::{Deserialize, Serialize};

use super::Register;
use super::numbered::numbered;

numbered! {
    /// Where the offset of a payload match counts from.
    PayloadBase {
        /// The link-layer header.
        #[doc(alias = "NFT_PAYLOAD_LL_HEADER")]
        LinkLayer = 0,
        /// The IPv4 or IPv6 header.
        #[doc(alias = "NFT_PAYLOAD_NETWORK_HEADER")]
        Network = 1,
        /// The TCP, UDP, ICMP… header.
        #[doc(alias = "NFT_PAYLOAD_TRANSPORT_HEADER")]
        Transport = 2,
        /// What the transport header carries. Linux 6.2.
        #[doc(alias = "NFT_PAYLOAD_INNER_HEADER")]
        Inner = 3,
        /// The header of a tunnel. Linux 6.2.
        #[doc(alias = "NFT_PAYLOAD_TUN_HEADER")]
        Tunnel = 4,
    }
}

numbered! {
    /// What a meta expression loads or sets.
    MetaKey {
        /// Length of the packet, 32 bits. nft(8): `meta length`.
        #[doc(alias = "NFT_META_LEN")]
        Length = 0,
        /// EtherType, two bytes, network order. nft(8): `meta protocol`.
        #[doc(alias = "NFT_META_PROTOCOL")]
        Protocol = 1,
        /// Class of the queueing discipline. nft(8): `meta priority`.
        #[doc(alias = "NFT_META_PRIORITY")]
        Priority = 2,
        /// Packet mark. nft(8): `meta mark`.
        #[doc(alias = "NFT_META_MARK")]
        Mark = 3,
        /// Index of the interface it came in by. nft(8): `iif`.
        #[doc(alias = "NFT_META_IIF")]
        Iif = 4,
        /// Index of the interface it leaves by. nft(8): `oif`.
        #[doc(alias = "NFT_META_OIF")]
        Oif = 5,
        /// Name of the interface it came in by, 16 bytes. nft(8): `iifname`.
        #[doc(alias = "NFT_META_IIFNAME")]
        IifName = 6,
        /// Name of the interface it leaves by, 16 bytes. nft(8): `oifname`.
        #[doc(alias = "NFT_META_OIFNAME")]
        OifName = 7,
        /// Hardware type of the interface it came in by, two bytes. nft(8): `iiftype`.
        #[doc(alias = "NFT_META_IIFTYPE")]
        IifType = 8,
        /// Hardware type of the interface it leaves by, two bytes. nft(8): `oiftype`.
        #[doc(alias = "NFT_META_OIFTYPE")]
        OifType = 9,
        /// Uid of the opener of the socket. nft(8): `meta skuid`.
        #[doc(alias = "NFT_META_SKUID")]
        SkUid = 10,
        /// Gid of the opener of the socket. nft(8): `meta skgid`.
        #[doc(alias = "NFT_META_SKGID")]
        SkGid = 11,
        /// Whether the packet is traced, one byte. nft(8): `meta nftrace`.
        #[doc(alias = "NFT_META_NFTRACE")]
        NfTrace = 12,
        /// Realm of the route. nft(8): `rtclassid`.
        #[doc(alias = "NFT_META_RTCLASSID")]
        RtClassId = 13,
        /// Security mark. nft(8): `meta secmark`.
        #[doc(alias = "NFT_META_SECMARK")]
        SecMark = 14,
        /// Address family of the packet, one byte. nft(8): `meta nfproto`.
        #[doc(alias = "NFT_META_NFPROTO")]
        NfProto = 15,
        /// Transport protocol, one byte. nft(8): `meta l4proto`.
        #[doc(alias = "NFT_META_L4PROTO")]
        L4Proto = 16,
        /// Name of the bridge it came in by. nft(8): `ibrname`.
        #[doc(alias = "NFT_META_BRI_IIFNAME")]
        BridgeIifName = 17,
        /// Name of the bridge it leaves by. nft(8): `obrname`.
        #[doc(alias = "NFT_META_BRI_OIFNAME")]
        BridgeOifName = 18,
        /// Unicast, broadcast, multicast…, one byte. nft(8): `meta pkttype`.
        #[doc(alias = "NFT_META_PKTTYPE")]
        PktType = 19,
        /// Number of the processor. nft(8): `meta cpu`.
        #[doc(alias = "NFT_META_CPU")]
        Cpu = 20,
        /// Group of the interface it came in by. nft(8): `iifgroup`.
        #[doc(alias = "NFT_META_IIFGROUP")]
        IifGroup = 21,
        /// Group of the interface it leaves by. nft(8): `oifgroup`.
        #[doc(alias = "NFT_META_OIFGROUP")]
        OifGroup = 22,
        /// Class of the net_cls control group. nft(8): `meta cgroup`.
        #[doc(alias = "NFT_META_CGROUP")]
        Cgroup = 23,
        /// 32 random bits. nft(8): `meta random`.
        #[doc(alias = "NFT_META_PRANDOM")]
        Random = 24,
        /// Whether it came by IPsec, one byte. nft(8): `meta ipsec`.
        #[doc(alias = "NFT_META_SECPATH")]
        SecPath = 25,
        /// Kind of the interface it came in by, 16 bytes. nft(8): `iifkind`.
        #[doc(alias = "NFT_META_IIFKIND")]
        IifKind = 26,
        /// Kind of the interface it leaves by, 16 bytes. nft(8): `oifkind`.
        #[doc(alias = "NFT_META_OIFKIND")]
        OifKind = 27,
        /// VLAN of the bridge's port, two bytes. nft(8): `meta ibrpvid`.
        #[doc(alias = "NFT_META_BRI_IIFPVID")]
        BridgeIifPvid = 28,
        /// VLAN protocol of the bridge, two bytes. nft(8): `meta ibrvproto`.
        #[doc(alias = "NFT_META_BRI_IIFVPROTO")]
        BridgeIifVproto = 29,
        /// Nanoseconds since 1970, 64 bits. nft(8): `meta time`.
        #[doc(alias = "NFT_META_TIME_NS")]
        Time = 30,
        /// Day of the week from 0 for Sunday, one byte. nft(8): `meta day`.
        #[doc(alias = "NFT_META_TIME_DAY")]
        Day = 31,
        /// Seconds since midnight. nft(8): `meta hour`.
        #[doc(alias = "NFT_META_TIME_HOUR")]
        Hour = 32,
        /// Index of the port of a VRF that it came in by. nft(8): `meta sdif`.
        #[doc(alias = "NFT_META_SDIF")]
        Sdif = 33,
        /// Name of the port of a VRF that it came in by. nft(8): `meta sdifname`.
        #[doc(alias = "NFT_META_SDIFNAME")]
        SdifName = 34,
        /// Whether a frame goes to the host, not over the bridge, one byte. nft(8): `meta broute`. Linux 6.4.
        #[doc(alias = "NFT_META_BRI_BROUTE")]
        BridgeRoute = 35,
    }
}

impl MetaKey {
    /// How many bytes a value has in the registers.
    pub const fn size(self) -> u32 {
        match self {
            MetaKey::NfTrace
            | MetaKey::NfProto
            | MetaKey::L4Proto
            | MetaKey::PktType
            | MetaKey::SecPath
            | MetaKey::Day
            | MetaKey::BridgeRoute => 1,
            MetaKey::Protocol
            | MetaKey::IifType
            | MetaKey::OifType
            | MetaKey::BridgeIifPvid
            | MetaKey::BridgeIifVproto => 2,
            MetaKey::IifName
            | MetaKey::OifName
            | MetaKey::BridgeIifName
            | MetaKey::BridgeOifName
            | MetaKey::IifKind
            | MetaKey::OifKind
            | MetaKey::SdifName => 16,
            MetaKey::Time => 8,
            _ => 4,
        }
    }
}

numbered! {
    /// What a conntrack expression loads or sets.
    CtKey {
        /// State bits, 32 bits in the machine's order. nft(8): `ct state`.
        #[doc(alias = "NFT_CT_STATE")]
        State = 0,
        /// Direction of the packet in its flow, one byte. nft(8): `ct direction`.
        #[doc(alias = "NFT_CT_DIRECTION")]
        Direction = 1,
        /// Status bits. nft(8): `ct status`.
        #[doc(alias = "NFT_CT_STATUS")]
        Status = 2,
        /// Mark of the flow. nft(8): `ct mark`.
        #[doc(alias = "NFT_CT_MARK")]
        Mark = 3,
        /// Security mark of the flow. nft(8): `ct secmark`.
        #[doc(alias = "NFT_CT_SECMARK")]
        SecMark = 4,
        /// Milliseconds until the flow is forgotten. nft(8): `ct expiration`.
        #[doc(alias = "NFT_CT_EXPIRATION")]
        Expiration = 5,
        /// Name of the flow's helper, 16 bytes. nft(8): `ct helper`.
        #[doc(alias = "NFT_CT_HELPER")]
        Helper = 6,
        /// Address family of the flow, one byte. nft(8): `ct l3proto`.
        #[doc(alias = "NFT_CT_L3PROTOCOL")]
        L3Proto = 7,
        /// Source address, of the length of the table's family. nft(8): `ct saddr`.
        #[doc(alias = "NFT_CT_SRC")]
        Saddr = 8,
        /// Destination address. nft(8): `ct daddr`.
        #[doc(alias = "NFT_CT_DST")]
        Daddr = 9,
        /// Transport protocol, one byte. nft(8): `ct protocol`.
        #[doc(alias = "NFT_CT_PROTOCOL")]
        Protocol = 10,
        /// Source port. nft(8): `ct proto-src`.
        #[doc(alias = "NFT_CT_PROTO_SRC")]
        ProtoSrc = 11,
        /// Destination port. nft(8): `ct proto-dst`.
        #[doc(alias = "NFT_CT_PROTO_DST")]
        ProtoDst = 12,
        /// Labels of the flow, 128 bits. nft(8): `ct label`.
        #[doc(alias = "NFT_CT_LABELS")]
        Labels = 13,
        /// Packets so far, 64 bits. nft(8): `ct packets`.
        #[doc(alias = "NFT_CT_PKTS")]
        Packets = 14,
        /// Bytes so far, 64 bits. nft(8): `ct bytes`.
        #[doc(alias = "NFT_CT_BYTES")]
        Bytes = 15,
        /// Mean length of a packet, 64 bits. nft(8): `ct avgpkt`.
        #[doc(alias = "NFT_CT_AVGPKT")]
        AvgPkt = 16,
        /// Zone, two bytes. nft(8): `ct zone`.
        #[doc(alias = "NFT_CT_ZONE")]
        Zone = 17,
        /// Which changes are told to listeners. nft(8): `ct event`.
        #[doc(alias = "NFT_CT_EVENTMASK")]
        EventMask = 18,
        /// IPv4 source address. nft(8): `ct ip saddr`.
        #[doc(alias = "NFT_CT_SRC_IP")]
        SrcIp = 19,
        /// IPv4 destination address. nft(8): `ct ip daddr`.
        #[doc(alias = "NFT_CT_DST_IP")]
        DstIp = 20,
        /// IPv6 source address. nft(8): `ct ip6 saddr`.
        #[doc(alias = "NFT_CT_SRC_IP6")]
        SrcIp6 = 21,
        /// IPv6 destination address. nft(8): `ct ip6 daddr`.
        #[doc(alias = "NFT_CT_DST_IP6")]
        DstIp6 = 22,
        /// Number of the flow. nft(8): `ct id`.
        #[doc(alias = "NFT_CT_ID")]
        Id = 23,
    }
}

numbered! {
    /// Direction of a flow, for the conntrack keys that need one.
    CtDirection {
        /// From the opener of the flow.
        #[doc(alias = "IP_CT_DIR_ORIGINAL")]
        Original = 0,
        /// Towards it.
        #[doc(alias = "IP_CT_DIR_REPLY")]
        Reply = 1,
    }
}

numbered! {
    /// What a routing expression loads.
    RtKey {
        /// Realm. nft(8): `rt classid`.
        #[doc(alias = "NFT_RT_CLASSID")]
        ClassId = 0,
        /// IPv4 address of the next hop. nft(8): `rt ip nexthop`.
        #[doc(alias = "NFT_RT_NEXTHOP4")]
        NextHop4 = 1,
        /// IPv6 address of the next hop. nft(8): `rt ip6 nexthop`.
        #[doc(alias = "NFT_RT_NEXTHOP6")]
        NextHop6 = 2,
        /// Largest TCP segment on the route, two bytes. nft(8): `rt mtu`.
        #[doc(alias = "NFT_RT_TCPMSS")]
        TcpMss = 3,
        /// Whether the route goes through IPsec, one byte. nft(8): `rt ipsec`.
        #[doc(alias = "NFT_RT_XFRM")]
        Xfrm = 4,
    }
}

numbered! {
    /// What a socket expression loads of the socket that a packet is for.
    SocketKey {
        /// Whether it is transparent, one byte. nft(8): `socket transparent`.
        #[doc(alias = "NFT_SOCKET_TRANSPARENT")]
        Transparent = 0,
        /// Its mark. nft(8): `socket mark`.
        #[doc(alias = "NFT_SOCKET_MARK")]
        Mark = 1,
        /// Whether it is bound to any address, one byte. nft(8): `socket wildcard`.
        #[doc(alias = "NFT_SOCKET_WILDCARD")]
        Wildcard = 2,
        /// Number of an ancestor of its control group, 64 bits. nft(8): `socket cgroupv2 level N`.
        #[doc(alias = "NFT_SOCKET_CGROUPV2")]
        CgroupV2 = 3,
    }
}

numbered! {
    /// What a look-up in the routing tables yields.
    FibResult {
        /// Index of the interface. nft(8): `oif`.
        #[doc(alias = "NFT_FIB_RESULT_OIF")]
        Oif = 1,
        /// Name of the interface. nft(8): `oifname`.
        #[doc(alias = "NFT_FIB_RESULT_OIFNAME")]
        OifName = 2,
        /// Type of the address: local, unicast, broadcast… nft(8): `type`.
        #[doc(alias = "NFT_FIB_RESULT_ADDRTYPE")]
        AddrType = 3,
    }
}

/// What a look-up in the routing tables goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
#[doc(alias = "nft_fib_flags")]
pub struct FibFlags(pub u32);

impl FibFlags {
    /// The packet's source address. nft(8): `saddr`.
    pub const SADDR: FibFlags = FibFlags(1);
    /// Its destination address. nft(8): `daddr`.
    pub const DADDR: FibFlags = FibFlags(2);
    /// Its mark, too. nft(8): `mark`.
    pub const MARK: FibFlags = FibFlags(4);
    /// The interface it came in by, too. nft(8): `iif`.
    pub const IIF: FibFlags = FibFlags(8);
    /// The interface it leaves by, too. nft(8): `oif`.
    pub const OIF: FibFlags = FibFlags(16);
    /// Just whether there is a route, as a byte. nft(8): `exists`.
    pub const PRESENT: FibFlags = FibFlags(32);

    /// Both.
    pub const fn and(self, other: FibFlags) -> FibFlags {
        FibFlags(self.0 | other.0)
    }

    /// Whether all bits of the other are set.
    pub const fn has(self, other: FibFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

numbered! {
    /// Where an extension header or option is looked for.
    ExthdrOp {
        /// IPv6 extension headers, by protocol number.
        #[doc(alias = "NFT_EXTHDR_OP_IPV6")]
        Ipv6 = 0,
        /// TCP options.
        #[doc(alias = "NFT_EXTHDR_OP_TCPOPT")]
        TcpOption = 1,
        /// IPv4 options.
        #[doc(alias = "NFT_EXTHDR_OP_IPV4")]
        Ipv4Option = 2,
        /// SCTP chunks.
        #[doc(alias = "NFT_EXTHDR_OP_SCTP")]
        SctpChunk = 3,
        /// DCCP options. Linux 6.5.
        #[doc(alias = "NFT_EXTHDR_OP_DCCP")]
        DccpOption = 4,
    }
}

numbered! {
    /// How a numgen expression counts.
    NumgenKind {
        /// One after the other. nft(8): `numgen inc`.
        #[doc(alias = "NFT_NG_INCREMENTAL")]
        Incremental = 0,
        /// At random. nft(8): `numgen random`.
        #[doc(alias = "NFT_NG_RANDOM")]
        Random = 1,
    }
}

/// What is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Hash {
    /// A register, by Jenkins' hash. nft(8): `jhash`.
    #[doc(alias = "NFT_HASH_JENKINS")]
    Jenkins {
        /// Where the value is.
        sreg: Register,
        /// How many bytes.
        len: u32,
        /// Seed. The kernel draws one when there is none.
        seed: Option<u32>,
    },
    /// The flow, the same in both directions. nft(8): `symhash`.
    #[doc(alias = "NFT_HASH_SYM")]
    Symmetric,
}

numbered! {
    /// What a tunnel expression loads.
    TunnelKey {
        /// Whether the packet came by a tunnel with metadata, one byte.
        #[doc(alias = "NFT_TUNNEL_PATH")]
        Path = 0,
        /// Number of the tunnel.
        #[doc(alias = "NFT_TUNNEL_ID")]
        Id = 1,
    }
}

numbered! {
    /// Which of a packet's tunnels is asked about.
    TunnelMode {
        /// Any.
        #[doc(alias = "NFT_TUNNEL_MODE_NONE")]
        Any = 0,
        /// The one that it came by.
        #[doc(alias = "NFT_TUNNEL_MODE_RX")]
        Received = 1,
        /// The one that it will go by.
        #[doc(alias = "NFT_TUNNEL_MODE_TX")]
        Sent = 2,
    }
}

numbered! {
    /// What an xfrm expression loads of a packet's IPsec state.
    XfrmKey {
        /// IPv4 destination. nft(8): `ipsec … ip daddr`.
        #[doc(alias = "NFT_XFRM_KEY_DADDR_IP4")]
        Daddr4 = 1,
        /// IPv6 destination. nft(8): `ipsec … ip6 daddr`.
        #[doc(alias = "NFT_XFRM_KEY_DADDR_IP6")]
        Daddr6 = 2,
        /// IPv4 source. nft(8): `ipsec … ip saddr`.
        #[doc(alias = "NFT_XFRM_KEY_SADDR_IP4")]
        Saddr4 = 3,
        /// IPv6 source. nft(8): `ipsec … ip6 saddr`.
        #[doc(alias = "NFT_XFRM_KEY_SADDR_IP6")]
        Saddr6 = 4,
        /// Number of the request. nft(8): `ipsec … reqid`.
        #[doc(alias = "NFT_XFRM_KEY_REQID")]
        ReqId = 5,
        /// Security parameter index. nft(8): `ipsec … spi`.
        #[doc(alias = "NFT_XFRM_KEY_SPI")]
        Spi = 6,
    }
}

numbered! {
    /// Which of a packet's IPsec states is asked about.
    XfrmDirection {
        /// That by which it came. nft(8): `ipsec in`.
        #[doc(alias = "XFRM_POLICY_IN")]
        In = 0,
        /// That by which it will go. nft(8): `ipsec out`.
        #[doc(alias = "XFRM_POLICY_OUT")]
        Out = 1,
    }
}
