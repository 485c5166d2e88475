//! Expressions that do something, each beside the nft(8) statement that makes it.

use std::borrow::Cow;

use nftnl::nftnl_sys as sys;

use super::expr::{Encoded, NFT_REG_VERDICT};
use super::object::{Expression, Fault};
use crate::nft::{Expr, Family, Limit, Log, Nat, NatPorts, QueueNumber, Reject, Syslog, Verdict};
use crate::wire::nftables::{LIMIT_OVER, quota_flag};

/// Encodes such an expression.
pub(super) fn encode(expr: &Expr) -> Result<Encoded, Fault> {
    let mut e;
    match expr {
        // nft(8): `accept`, `jump chain`
        Expr::Verdict(verdict) => {
            e = Expression::new(c"immediate")?;
            e.u32(sys::NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
            let (code, chain) = code(verdict);
            e.u32(sys::NFTNL_EXPR_IMM_VERDICT, code);
            if let Some(chain) = chain {
                e.text(sys::NFTNL_EXPR_IMM_CHAIN, "chain name", chain)?;
            }
        }
        // nft(8): `counter`
        Expr::Counter { packets, bytes } => {
            e = Expression::new(c"counter")?;
            e.u64(sys::NFTNL_EXPR_CTR_PACKETS, *packets);
            e.u64(sys::NFTNL_EXPR_CTR_BYTES, *bytes);
        }
        // nft(8): `log prefix "…" group N`
        Expr::Log(log) => {
            e = Expression::new(c"log")?;
            e.u16(sys::NFTNL_EXPR_LOG_GROUP, log.group);
            prefix(&mut e, log.prefix.as_deref())?;
            if let Some(snaplen) = log.snaplen {
                e.u32(sys::NFTNL_EXPR_LOG_SNAPLEN, snaplen);
            }
            if let Some(threshold) = log.queue_threshold {
                e.u16(sys::NFTNL_EXPR_LOG_QTHRESHOLD, threshold);
            }
        }
        // nft(8): `log level warn flags all`
        Expr::Syslog(Syslog { prefix: text, level, flags }) => {
            e = Expression::new(c"log")?;
            prefix(&mut e, text.as_deref())?;
            if let Some(level) = level {
                e.u32(sys::NFTNL_EXPR_LOG_LEVEL, level.to_wire());
            }
            if flags.0 != 0 {
                e.u32(sys::NFTNL_EXPR_LOG_FLAGS, flags.0);
            }
        }
        // nft(8): `reject with tcp reset`
        Expr::Reject(reject) => {
            let (kind, code) = match reject {
                Reject::Icmp(code) => (0, Some(*code)),
                Reject::TcpReset => (1, None),
                Reject::Icmpx(code) => (2, Some(code.to_wire() as u8)),
            };
            e = Expression::new(c"reject")?;
            e.u32(sys::NFTNL_EXPR_REJECT_TYPE, kind);
            if let Some(code) = code {
                e.u8(sys::NFTNL_EXPR_REJECT_CODE, code);
            }
        }
        // nft(8): `masquerade to :1024-2047 random`
        Expr::Masquerade(NatPorts { ports, flags }) => {
            e = Expression::new(c"masq")?;
            if let Some(ports) = ports {
                e.u32(sys::NFTNL_EXPR_MASQ_REG_PROTO_MIN, ports.min.to_wire());
                e.u32(sys::NFTNL_EXPR_MASQ_REG_PROTO_MAX, ports.max.to_wire());
            }
            if flags.0 != 0 {
                e.u32(sys::NFTNL_EXPR_MASQ_FLAGS, flags.0);
            }
        }
        // nft(8): `redirect to :8080`
        Expr::Redirect(NatPorts { ports, flags }) => {
            e = Expression::new(c"redir")?;
            if let Some(ports) = ports {
                e.u32(sys::NFTNL_EXPR_REDIR_REG_PROTO_MIN, ports.min.to_wire());
                e.u32(sys::NFTNL_EXPR_REDIR_REG_PROTO_MAX, ports.max.to_wire());
            }
            if flags.0 != 0 {
                e.u32(sys::NFTNL_EXPR_REDIR_FLAGS, flags.0);
            }
        }
        // nft(8): `dnat to 10.0.0.1:80`
        Expr::Nat(Nat { kind, family, addresses, ports, flags }) => {
            e = Expression::new(c"nat")?;
            e.u32(sys::NFTNL_EXPR_NAT_TYPE, kind.to_wire());
            e.u32(sys::NFTNL_EXPR_NAT_FAMILY, family.to_wire().into());
            if let Some(addresses) = addresses {
                e.u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, addresses.min.to_wire());
                e.u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MAX, addresses.max.to_wire());
            }
            if let Some(ports) = ports {
                e.u32(sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, ports.min.to_wire());
                e.u32(sys::NFTNL_EXPR_NAT_REG_PROTO_MAX, ports.max.to_wire());
            }
            if flags.0 != 0 {
                e.u32(sys::NFTNL_EXPR_NAT_FLAGS, flags.0);
            }
        }
        // nft(8): `tproxy to :50080`
        Expr::Tproxy { family, address, port } => {
            e = Expression::new(c"tproxy")?;
            e.u32(sys::NFTNL_EXPR_TPROXY_FAMILY, family.map_or(0, Family::to_wire).into());
            if let Some(address) = address {
                e.u32(sys::NFTNL_EXPR_TPROXY_REG_ADDR, address.to_wire());
            }
            if let Some(port) = port {
                e.u32(sys::NFTNL_EXPR_TPROXY_REG_PORT, port.to_wire());
            }
        }
        // nft(8): `limit rate over 10/second burst 5 packets`
        Expr::Limit(Limit { rate, seconds, burst, over, bytes }) => {
            e = Expression::new(c"limit")?;
            e.u64(sys::NFTNL_EXPR_LIMIT_RATE, *rate);
            e.u64(sys::NFTNL_EXPR_LIMIT_UNIT, *seconds);
            e.u32(sys::NFTNL_EXPR_LIMIT_BURST, *burst);
            e.u32(sys::NFTNL_EXPR_LIMIT_TYPE, u32::from(*bytes));
            e.u32(sys::NFTNL_EXPR_LIMIT_FLAGS, if *over { LIMIT_OVER } else { 0 });
        }
        // nft(8): `quota over 10 mbytes`
        Expr::Quota(quota) => {
            e = Expression::new(c"quota")?;
            e.u64(sys::NFTNL_EXPR_QUOTA_BYTES, quota.bytes);
            e.u64(sys::NFTNL_EXPR_QUOTA_CONSUMED, quota.used);
            e.u32(sys::NFTNL_EXPR_QUOTA_FLAGS, if quota.over { quota_flag::OVER } else { 0 });
        }
        // nft(8): `ct count over 10`
        Expr::Connlimit { count, over } => {
            e = Expression::new(c"connlimit")?;
            e.u32(sys::NFTNL_EXPR_CONNLIMIT_COUNT, *count);
            e.u32(sys::NFTNL_EXPR_CONNLIMIT_FLAGS, u32::from(*over));
        }
        // nft(8): `last`
        Expr::Last { set, milliseconds } => {
            e = Expression::new(c"last")?;
            e.u32(sys::NFTNL_EXPR_LAST_SET, u32::from(*set));
            e.u64(sys::NFTNL_EXPR_LAST_MSECS, *milliseconds);
        }
        // nft(8): `counter name "web"`
        Expr::ObjectRef { kind, name } => {
            e = Expression::new(c"objref")?;
            e.u32(sys::NFTNL_EXPR_OBJREF_IMM_TYPE, kind.to_wire());
            e.text(sys::NFTNL_EXPR_OBJREF_IMM_NAME, "object name", name.as_str())?;
        }
        // nft(8): `counter name tcp dport map @counters`
        Expr::ObjectMap { set, sreg } => {
            e = Expression::new(c"objref")?;
            e.u32(sys::NFTNL_EXPR_OBJREF_SET_SREG, sreg.to_wire());
            e.text(sys::NFTNL_EXPR_OBJREF_SET_NAME, "set name", set.as_str())?;
        }
        // nft(8): `notrack`
        Expr::Notrack => e = Expression::new(c"notrack")?,
        // nft(8): `queue flags bypass to 1-3`
        Expr::Queue { to, flags } => {
            e = Expression::new(c"queue")?;
            match to {
                QueueNumber::Range { first, total } => {
                    e.u16(sys::NFTNL_EXPR_QUEUE_NUM, *first);
                    e.u16(sys::NFTNL_EXPR_QUEUE_TOTAL, *total);
                }
                QueueNumber::Register(register) => e.u32(sys::NFTNL_EXPR_QUEUE_SREG_QNUM, register.to_wire()),
            }
            e.u16(sys::NFTNL_EXPR_QUEUE_FLAGS, flags.0);
        }
        // nft(8): `dup to 10.0.0.1 device "eth0"`
        Expr::Dup { address, device } => {
            e = Expression::new(c"dup")?;
            if let Some(address) = address {
                e.u32(sys::NFTNL_EXPR_DUP_SREG_ADDR, address.to_wire());
            }
            if let Some(device) = device {
                e.u32(sys::NFTNL_EXPR_DUP_SREG_DEV, device.to_wire());
            }
        }
        // nft(8): `fwd to "eth0"`
        Expr::Fwd { device, neighbour } => {
            e = Expression::new(c"fwd")?;
            e.u32(sys::NFTNL_EXPR_FWD_SREG_DEV, device.to_wire());
            if let Some((address, family)) = neighbour {
                e.u32(sys::NFTNL_EXPR_FWD_SREG_ADDR, address.to_wire());
                e.u32(sys::NFTNL_EXPR_FWD_NFPROTO, family.to_wire().into());
            }
        }
        // nft(8): `flow add @flows`
        Expr::FlowOffload { flowtable } => {
            e = Expression::new(c"flow_offload")?;
            e.text(sys::NFTNL_EXPR_FLOW_TABLE_NAME, "flowtable name", flowtable.as_str())?;
        }
        // nft(8): `synproxy mss 1460 wscale 7`
        Expr::Synproxy(synproxy) => {
            e = Expression::new(c"synproxy")?;
            e.u16(sys::NFTNL_EXPR_SYNPROXY_MSS, synproxy.mss);
            e.u8(sys::NFTNL_EXPR_SYNPROXY_WSCALE, synproxy.wscale);
            e.u32(sys::NFTNL_EXPR_SYNPROXY_FLAGS, synproxy.flags);
        }
        other => return Err(Cow::Owned(format!("`{}` has no encoding", other.kernel_name()))),
    }
    Ok(Encoded::Nftnl(e))
}

/// The kernel's number for a verdict, and the chain it names.
pub(super) fn code(verdict: &Verdict) -> (u32, Option<&str>) {
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Continue => (-1, None),
        Verdict::Jump(chain) => (-3, Some(chain.as_str())),
        Verdict::Goto(chain) => (-4, Some(chain.as_str())),
        Verdict::Return => (-5, None),
    };
    (code as u32, chain)
}

fn prefix(e: &mut Expression, prefix: Option<&str>) -> Result<(), Fault> {
    let Some(prefix) = prefix else { return Ok(()) };
    if prefix.len() > Log::MAX_PREFIX {
        let (len, max) = (prefix.len(), Log::MAX_PREFIX);
        return Err(Cow::Owned(format!("log prefix of {len} bytes, more than the kernel's {max}")));
    }
    e.text(sys::NFTNL_EXPR_LOG_PREFIX, "log prefix", prefix)
}
