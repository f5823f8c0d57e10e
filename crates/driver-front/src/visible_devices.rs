//! `CUDA_VISIBLE_DEVICES`: which devices a program sees, and in which order.

/// The devices that the variable's value selects out of those with `uuids`, as indices in the order
/// in which the program numbers them.
///
/// As the CUDA programming guide says: a list of indices or of UUIDs (`GPU-` and enough of the
/// hexadecimal digits to be unique) separated by commas; the list ends at its first entry that is
/// no device; unset selects all; a device named twice selects none.
pub fn visible_devices(value: Option<&str>, uuids: &[[u8; 16]]) -> Vec<usize> {
    let Some(list) = value else {
        return (0..uuids.len()).collect();
    };
    let mut visible = Vec::new();
    for entry in list.split(',') {
        let Some(index) = find(entry.trim(), uuids) else {
            break;
        };
        if visible.contains(&index) {
            return Vec::new();
        }
        visible.push(index);
    }
    visible
}

fn find(entry: &str, uuids: &[[u8; 16]]) -> Option<usize> {
    if let Some(wanted) = entry.strip_prefix("GPU-") {
        let wanted = wanted.replace('-', "").to_lowercase();
        let text = |uuid: &[u8; 16]| {
            uuid.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let mut matching =
            (0..uuids.len()).filter(|index| text(&uuids[*index]).starts_with(&wanted));
        let found = matching.next()?;
        return (!wanted.is_empty() && matching.next().is_none()).then_some(found);
    }
    entry.parse().ok().filter(|index| *index < uuids.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUIDS: [[u8; 16]; 3] = [[0x11; 16], [0x12; 16], [0x33; 16]];

    #[test]
    fn unset_shows_all_and_empty_shows_none() {
        assert_eq!(visible_devices(None, &UUIDS), [0, 1, 2]);
        assert!(visible_devices(Some(""), &UUIDS).is_empty());
        assert!(visible_devices(Some("-1"), &UUIDS).is_empty());
    }

    #[test]
    fn order_is_the_lists_and_the_first_stranger_ends_it() {
        assert_eq!(visible_devices(Some("2,0"), &UUIDS), [2, 0]);
        assert_eq!(visible_devices(Some("1, 7, 0"), &UUIDS), [1]);
        assert!(visible_devices(Some("1,1"), &UUIDS).is_empty());
    }

    #[test]
    fn a_uuid_needs_as_many_digits_as_make_it_unique() {
        assert_eq!(visible_devices(Some("GPU-33"), &UUIDS), [2]);
        assert_eq!(visible_devices(Some("GPU-12121212-1212"), &UUIDS), [1]);
        assert!(visible_devices(Some("GPU-1"), &UUIDS).is_empty());
        assert!(visible_devices(Some("GPU-"), &UUIDS[..1]).is_empty());
    }
}
