//! Special registers.

/// A special register whose value is known before a block starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// `%tid.x`, `.y`, `.z`
    Tid(u8),
    /// `%ntid`
    Ntid(u8),
    /// `%ctaid`
    Ctaid(u8),
    /// `%nctaid`
    Nctaid(u8),
    /// `%laneid`
    Lane,
    /// `%warpid`
    Warp,
    /// `%nwarpid`
    Warps,
    /// `%lanemask_eq`, `_le`, `_lt`, `_ge`, `_gt`
    LaneMask(Order),
    /// `%smid`: the OS thread's number.
    Multiprocessor,
    /// `%nsmid`
    Multiprocessors,
    /// `%gridid` (64 bits)
    Grid,
    /// `%envreg0` to `%envreg31`
    Environment(u8),
    /// `%dynamic_smem_size`
    DynamicShared,
    /// `%total_smem_size`, `%aggr_smem_size`
    TotalShared,
    /// A register that is the same for every launch here.
    Fixed(u32),
}

/// Which lanes a lane mask holds, seen from its own lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    Equal,
    LessEqual,
    Less,
    GreaterEqual,
    Greater,
}

/// A special register that must be read when its instruction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// `%clock`, `%clock64` (low half)
    Clock,
    /// `%clock_hi`
    ClockHigh,
    /// `%globaltimer`, `%globaltimer_lo`
    Nanoseconds,
    /// `%globaltimer_hi`
    NanosecondsHigh,
}

/// A special register by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    Special(Special),
    Timer(Timer),
}

impl Special {
    /// Whether the register has 64 bits.
    pub fn is_wide(self) -> bool {
        self == Special::Grid
    }
}

/// The special register written `name` (with its `%`).
pub fn by_name(name: &str) -> Option<Named> {
    use Special::*;
    let name = name.strip_prefix('%')?;
    let special = match name {
        "laneid" => Lane,
        "warpid" => Warp,
        "nwarpid" => Warps,
        "lanemask_eq" => LaneMask(Order::Equal),
        "lanemask_le" => LaneMask(Order::LessEqual),
        "lanemask_lt" => LaneMask(Order::Less),
        "lanemask_ge" => LaneMask(Order::GreaterEqual),
        "lanemask_gt" => LaneMask(Order::Greater),
        "smid" => Multiprocessor,
        "nsmid" => Multiprocessors,
        "gridid" => Grid,
        "dynamic_smem_size" => DynamicShared,
        "total_smem_size" | "aggr_smem_size" => TotalShared,
        // No shared memory is reserved for the system here.
        "reserved_smem_offset_begin"
        | "reserved_smem_offset_end"
        | "reserved_smem_offset_cap"
        | "reserved_smem_offset_0"
        | "reserved_smem_offset_1" => Fixed(0),
        // Every block is a cluster of its own.
        "is_explicit_cluster" | "cluster_ctarank" => Fixed(0),
        "cluster_nctarank" => Fixed(1),
        "clock" | "clock64" => return Some(Named::Timer(Timer::Clock)),
        "clock_hi" => return Some(Named::Timer(Timer::ClockHigh)),
        "globaltimer" | "globaltimer_lo" => return Some(Named::Timer(Timer::Nanoseconds)),
        "globaltimer_hi" => return Some(Named::Timer(Timer::NanosecondsHigh)),
        _ => {
            if let Some(number) = name.strip_prefix("envreg") {
                return number
                    .parse()
                    .ok()
                    .filter(|n| *n < 32)
                    .map(|n| Named::Special(Environment(n)));
            }
            let (base, axis) = name.split_once('.')?;
            let axis = ["x", "y", "z"].iter().position(|a| *a == axis)? as u8;
            match base {
                "tid" => Tid(axis),
                "ntid" => Ntid(axis),
                "ctaid" | "clusterid" => Ctaid(axis),
                "nctaid" | "nclusterid" => Nctaid(axis),
                "cluster_ctaid" => Fixed(0),
                "cluster_nctaid" => Fixed(1),
                _ => return None,
            }
        }
    };
    Some(Named::Special(special))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(by_name("%tid.y"), Some(Named::Special(Special::Tid(1))));
        assert_eq!(
            by_name("%envreg31"),
            Some(Named::Special(Special::Environment(31)))
        );
        assert_eq!(by_name("%clock64"), Some(Named::Timer(Timer::Clock)));
        for name in ["%tid", "%tid.w", "%envreg32", "tid.x", "%r1"] {
            assert_eq!(by_name(name), None, "{name}");
        }
    }
}
