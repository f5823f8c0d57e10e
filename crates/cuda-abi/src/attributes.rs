//! Numbers and names of the queryable attributes.

pub use crate::generated::names::{
    DEVICE_ATTRIBUTES, FUNCTION_ATTRIBUTES, POINTER_ATTRIBUTES, POOL_ATTRIBUTES,
};

/// The header's name of an attribute number in one of the tables above.
pub fn name(table: &[(u32, &'static str)], number: u32) -> Option<&'static str> {
    let found = table.binary_search_by_key(&number, |row| row.0).ok()?;
    Some(table[found].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_have_their_header_names() {
        assert_eq!(
            name(DEVICE_ATTRIBUTES, 75),
            Some("CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR")
        );
        assert_eq!(
            name(FUNCTION_ATTRIBUTES, 5),
            Some("CU_FUNC_ATTRIBUTE_PTX_VERSION")
        );
        assert_eq!(
            name(POINTER_ATTRIBUTES, 7),
            Some("CU_POINTER_ATTRIBUTE_BUFFER_ID")
        );
        assert_eq!(name(DEVICE_ATTRIBUTES, 0), None);
    }
}
