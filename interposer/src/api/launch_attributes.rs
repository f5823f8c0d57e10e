//! Attributes of launches: those that hold numbers travel as they are.

use std::mem::{size_of, MaybeUninit};

use harp_cuda_abi::launch::holds_numbers;
use harp_cuda_abi::types::*;

/// The attributes of a launch.
#[derive(Default)]
pub struct LaunchAttributes {
    pub cooperative: bool,
    /// Blocks of a cluster in each direction, where the launch says.
    pub cluster: Option<[u32; 3]>,
    /// All but the cooperative one, as whole records.
    records: Vec<u8>,
}

impl LaunchAttributes {
    /// Reads the attributes of a configuration.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_SUPPORTED` for those that name events or nodes.
    ///
    /// # Safety
    /// `config` has `numAttrs` attributes, or none at all.
    pub unsafe fn read(config: &CUlaunchConfig) -> Result<LaunchAttributes, CUresult> {
        let mut read = LaunchAttributes::default();
        if config.attrs.is_null() {
            return Ok(read);
        }
        // SAFETY: the caller's promise.
        let all = unsafe { std::slice::from_raw_parts(config.attrs, config.numAttrs as usize) };
        for attribute in all {
            match attribute.id {
                CU_LAUNCH_ATTRIBUTE_IGNORE => continue,
                CU_LAUNCH_ATTRIBUTE_COOPERATIVE => {
                    // SAFETY: the id says which member is meant.
                    read.cooperative = unsafe { attribute.value.cooperative } != 0;
                    continue;
                }
                CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION => {
                    // SAFETY: as above.
                    let size = unsafe { attribute.value.clusterDim };
                    read.cluster = Some([size.x, size.y, size.z]);
                }
                id if holds_numbers(id) => (),
                _ => return Err(CUDA_ERROR_NOT_SUPPORTED),
            }
            read.append(attribute);
        }
        Ok(read)
    }

    /// What travels: nothing for a launch that only may be cooperative.
    pub fn records(mut self) -> Vec<u8> {
        if self.cooperative && !self.records.is_empty() {
            // SAFETY: numbers.
            let mut attribute: CUlaunchAttribute = unsafe { MaybeUninit::zeroed().assume_init() };
            attribute.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
            attribute.value.cooperative = 1;
            self.append(&attribute);
        }
        self.records
    }

    fn append(&mut self, attribute: &CUlaunchAttribute) {
        let at: *const CUlaunchAttribute = attribute;
        // SAFETY: a record without pointers, of which the program may have left some bytes unset: what
        // they hold is the program's own and means nothing to the server.
        let bytes =
            unsafe { std::slice::from_raw_parts(at.cast::<u8>(), size_of::<CUlaunchAttribute>()) };
        self.records.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(attributes: &mut [CUlaunchAttribute]) -> CUlaunchConfig {
        // SAFETY: numbers and null pointers.
        let mut config: CUlaunchConfig = unsafe { MaybeUninit::zeroed().assume_init() };
        config.attrs = attributes.as_mut_ptr();
        config.numAttrs = attributes.len() as u32;
        config
    }

    fn attribute(id: CUlaunchAttributeID) -> CUlaunchAttribute {
        // SAFETY: as above.
        let mut attribute: CUlaunchAttribute = unsafe { MaybeUninit::zeroed().assume_init() };
        attribute.id = id;
        attribute
    }

    #[test]
    fn a_cooperative_launch_with_others_names_all_of_them() {
        let mut both = [
            attribute(CU_LAUNCH_ATTRIBUTE_COOPERATIVE),
            attribute(CU_LAUNCH_ATTRIBUTE_PRIORITY),
        ];
        both[0].value.cooperative = 1;
        // SAFETY: an array that lives.
        let read = unsafe { LaunchAttributes::read(&config(&mut both[..1])) }.unwrap();
        assert!(read.cooperative && read.records().is_empty());
        // SAFETY: as above.
        let read = unsafe { LaunchAttributes::read(&config(&mut both)) }.unwrap();
        assert_eq!(read.records().len(), 2 * size_of::<CUlaunchAttribute>());
    }

    #[test]
    fn what_names_events_does_not_travel() {
        let mut one = [attribute(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT)];
        // SAFETY: as above.
        let read = unsafe { LaunchAttributes::read(&config(&mut one)) };
        assert_eq!(read.err(), Some(CUDA_ERROR_NOT_SUPPORTED));
    }
}
