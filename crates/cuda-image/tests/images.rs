//! Images of every form, whole and broken.

use core::ffi::c_void;

use harp_cuda_image::{fatbins, flatten, image_len, reduce, select, ImageError, Kind};

const PTX: &[u8] = b"//\n.version 9.0\n.target sm_86\n.address_size 64\n";

const LZ4: u64 = 0x2000;
const ZSTD: u64 = 0x8000;
const ARCH_SPECIFIC: u64 = 0x10_0000;

struct Image {
    kind: u16,
    arch: u32,
    flags: u64,
    payload: Vec<u8>,
    unpacked: u64,
}

fn ptx(arch: u32, text: &[u8]) -> Image {
    Image {
        kind: 1,
        arch,
        flags: 0x11,
        payload: text.to_vec(),
        unpacked: 0,
    }
}

fn cubin(arch: u32) -> Image {
    Image {
        kind: 2,
        arch,
        flags: 0x11,
        payload: vec![0x7f; 96],
        unpacked: 0,
    }
}

fn lz4(arch: u32, text: &[u8]) -> Image {
    let payload = lz4_flex::block::compress(text);
    Image {
        kind: 1,
        arch,
        flags: 0x11 | LZ4,
        payload,
        unpacked: text.len() as u64,
    }
}

fn zstd(arch: u32, text: &[u8]) -> Image {
    let payload = zstd::bulk::compress(text, 3).unwrap();
    Image {
        kind: 1,
        arch,
        flags: 0x11 | ZSTD,
        payload,
        unpacked: text.len() as u64,
    }
}

fn fatbin(images: &[Image]) -> Vec<u8> {
    let mut body = Vec::new();
    for image in images {
        let packed = image.flags & (LZ4 | ZSTD) != 0;
        let padded = image.payload.len().next_multiple_of(8);
        let start = body.len();
        body.extend(image.kind.to_le_bytes());
        body.extend(0x0101u16.to_le_bytes());
        body.extend(64u32.to_le_bytes());
        body.extend((padded as u64).to_le_bytes());
        body.extend(
            if packed {
                image.payload.len() as u32
            } else {
                0
            }
            .to_le_bytes(),
        );
        body.extend(0u32.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(9u16.to_le_bytes());
        body.extend(image.arch.to_le_bytes());
        body.extend([0; 8]);
        body.extend(image.flags.to_le_bytes());
        body.extend([0; 8]);
        body.extend(image.unpacked.to_le_bytes());
        assert_eq!(body.len() - start, 64);
        body.extend(&image.payload);
        body.resize(start + 64 + padded, 0);
    }
    let mut bytes = 0xBA55_ED50u32.to_le_bytes().to_vec();
    bytes.extend(1u16.to_le_bytes());
    bytes.extend(16u16.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    bytes
}

fn texts(image: &[u8], arch: u32) -> Vec<Vec<u8>> {
    select(image, arch)
        .unwrap()
        .into_iter()
        .map(|ptx| ptx.text)
        .collect()
}

#[test]
fn text_is_taken_as_it_is_without_its_padding() {
    assert_eq!(texts(PTX, 86), [PTX]);
    let mut padded = PTX.to_vec();
    padded.extend([0; 5]);
    assert_eq!(texts(&padded, 86), [PTX]);
    assert_eq!(select(b"\x7fTileIR", 86), Err(ImageError::UnknownForm));
    assert_eq!(select(b"", 86), Err(ImageError::UnknownForm));
}

#[test]
fn every_packing_unpacks_to_the_same_text() {
    let long = PTX.repeat(4000);
    for image in [ptx(80, &long), lz4(80, &long), zstd(80, &long)] {
        assert_eq!(
            texts(&fatbin(&[cubin(86), image]), 86),
            std::slice::from_ref(&long)
        );
    }
}

#[test]
fn an_lz4_entry_may_claim_too_little() {
    let long = PTX.repeat(100);
    let image = Image {
        unpacked: 10,
        ..lz4(80, &long)
    };
    assert_eq!(texts(&fatbin(&[image]), 86), [long]);
}

#[test]
fn the_nearest_architecture_at_or_below_the_device_wins() {
    let image = fatbin(&[
        ptx(75, b".75"),
        ptx(80, b".80"),
        ptx(90, b".90"),
        ptx(120, b".120"),
    ]);
    assert_eq!(texts(&image, 86), [b".80"]);
    assert_eq!(texts(&image, 90), [b".90"]);
    assert_eq!(texts(&image, 61), [b".75"]);
    let specific = Image {
        flags: 0x11 | ARCH_SPECIFIC,
        ..ptx(90, b".90a")
    };
    assert_eq!(texts(&fatbin(&[specific, ptx(75, b".75")]), 90), [b".75"]);
}

#[test]
fn several_fatbins_give_the_texts_that_the_first_was_linked_from() {
    let mut all = fatbin(&[cubin(75)]);
    all.extend(fatbin(&[ptx(80, b".first")]));
    all.extend([0; 8]);
    all.extend(fatbin(&[zstd(80, b".second")]));
    assert_eq!(texts(&all, 86), [b".first".to_vec(), b".second".to_vec()]);
}

#[test]
fn machine_code_alone_is_named() {
    let image = fatbin(&[cubin(90), cubin(75), cubin(90)]);
    let error = select(&image, 86).unwrap_err();
    assert_eq!(
        error,
        ImageError::NoPtx {
            machine_code_for: vec![75, 90]
        }
    );
    assert_eq!(
        error.to_string(),
        "the image holds machine code for sm_75, sm_90 and no PTX"
    );
    let mut elf = vec![0; 64];
    elf[..4].copy_from_slice(b"\x7fELF");
    elf[7] = 0x41;
    elf[48..52].copy_from_slice(&0x0600_5a04u32.to_le_bytes());
    assert_eq!(
        select(&elf, 86),
        Err(ImageError::NoPtx {
            machine_code_for: vec![90]
        })
    );
}

#[test]
fn a_reduced_image_holds_what_is_selected_and_nothing_else() {
    let first = [
        cubin(86),
        ptx(75, b".version 7.5"),
        zstd(80, PTX),
        cubin(90),
    ];
    let second = [cubin(75), lz4(90, PTX)];
    let linked = fatbin(&[cubin(86)]);
    let whole = [linked, fatbin(&first), fatbin(&second)].concat();
    for arch in [75, 86, 120] {
        let reduced = reduce(whole.clone(), arch).unwrap();
        assert_eq!(texts(&reduced, arch), texts(&whole, arch));
        let kinds: Vec<Kind> = fatbins(&reduced)
            .unwrap()
            .iter()
            .flat_map(|fatbin| fatbin.entries.iter().map(|entry| entry.kind))
            .collect();
        assert_eq!(kinds, [Kind::Ptx, Kind::Ptx]);
    }
    let alone = reduce(fatbin(&first), 86).unwrap();
    assert_eq!(texts(&alone, 86), [PTX]);
    assert!(alone.len() < fatbin(&first).len() / 2);
    assert_eq!(reduce(PTX.to_vec(), 86).as_deref(), Ok(PTX));
}

#[test]
fn an_image_of_machine_code_reduces_to_nothing() {
    let some = [fatbin(&[ptx(80, PTX)]), fatbin(&[cubin(90), cubin(75)])].concat();
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(64, 0);
    for image in [some, fatbin(&[cubin(90)]), elf] {
        let refusal = reduce(image.clone(), 86).unwrap_err();
        assert_eq!(select(&image, 86).unwrap_err(), refusal);
        assert!(matches!(refusal, ImageError::NoPtx { .. }));
    }
}

#[test]
fn entries_are_described() {
    let image = fatbin(&[cubin(86), zstd(90, PTX)]);
    let all = fatbins(&image).unwrap();
    let [machine, text] = all[0].entries[..] else {
        panic!("two entries")
    };
    assert_eq!((machine.kind, machine.arch), (Kind::Cubin, 86));
    assert_eq!(
        (text.kind, text.arch, text.version),
        (Kind::Ptx, 90, (9, 0))
    );
    assert_eq!(text.unpacked_len, PTX.len() as u64);
}

/// Cut anywhere, an image is an error or (in its padding) the same text: never a panic.
#[test]
fn every_truncation_is_an_error() {
    let image = fatbin(&[ptx(75, PTX), zstd(80, PTX)]);
    for length in 0..image.len() {
        assert!(select(&image[..length], 86).is_err(), "cut at {length}");
    }
}

#[test]
fn hostile_sizes_neither_overflow_nor_allocate() {
    let sound = fatbin(&[lz4(80, PTX)]);
    // Fatbin size, entry header length, payload length, packed length, unpacked length.
    for (offset, width) in [
        (8, 8),
        (16 + 4, 4),
        (16 + 8, 8),
        (16 + 16, 4),
        (16 + 56, 8),
        (6, 2),
    ] {
        for value in [0u64, 1, 0x7fff_ffff, 0xffff_fff0, u64::MAX, u64::MAX - 15] {
            let mut image = sound.clone();
            image[offset..offset + width].copy_from_slice(&value.to_le_bytes()[..width]);
            if let Ok(found) = select(&image, 86) {
                assert!(
                    found.iter().all(|ptx| ptx.text.len() <= PTX.len()),
                    "{offset} {value:x}"
                );
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_survived() {
    let sound = fatbin(&[zstd(80, &PTX.repeat(8)), lz4(90, &PTX.repeat(8))]);
    for bit in 0..sound.len() * 8 {
        let mut image = sound.clone();
        image[bit / 8] ^= 1 << (bit % 8);
        let _ = select(&image, 86);
        let _ = select(&image, 90);
    }
}

#[repr(C)]
struct Wrapper {
    magic: u32,
    version: u32,
    fatbin: *const c_void,
    linked: *const *const c_void,
}

#[test]
fn pointers_without_a_length_are_measured() {
    let mut text = PTX.to_vec();
    text.push(0);
    let image = fatbin(&[ptx(80, PTX), cubin(86)]);
    // SAFETY: both images are whole and in memory.
    unsafe {
        assert_eq!(image_len(text.as_ptr().cast()), Ok(PTX.len()));
        assert_eq!(flatten(text.as_ptr().cast()).unwrap(), PTX);
        assert_eq!(image_len(image.as_ptr().cast()), Ok(image.len()));
        assert_eq!(flatten(image.as_ptr().cast()).unwrap(), image);
        assert_eq!(
            flatten(c"\x7fTileIR".as_ptr().cast()),
            Err(ImageError::UnknownForm)
        );
    }
}

#[test]
fn wrappers_lead_to_their_fatbins() {
    let (one, two) = (fatbin(&[ptx(80, b".one")]), fatbin(&[ptx(80, b".two")]));
    let result = fatbin(&[cubin(75)]);
    let linked = [one.as_ptr().cast(), two.as_ptr().cast(), core::ptr::null()];
    let mut wrapper = Wrapper {
        magic: 0x4662_43b1,
        version: 1,
        fatbin: two.as_ptr().cast(),
        linked: core::ptr::null(),
    };
    // SAFETY: the wrapper and all it points to are in memory.
    unsafe {
        assert_eq!(flatten((&raw const wrapper).cast()).unwrap(), two);
        wrapper.version = 2;
        wrapper.fatbin = result.as_ptr().cast();
        wrapper.linked = linked.as_ptr();
        let all = flatten((&raw const wrapper).cast()).unwrap();
        assert_eq!(all, [result, one, two].concat());
        assert_eq!(texts(&all, 86), [b".one", b".two"]);
    }
}

/// This test program is itself a 64-bit ELF file: its measured end is the end of the file.
#[test]
fn elf_files_are_measured_by_their_headers() {
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    // SAFETY: the whole file is in memory.
    assert_eq!(unsafe { image_len(file.as_ptr().cast()) }, Ok(file.len()));
}

#[test]
fn many_small_images_that_unpack_to_much_are_refused() {
    let zeros = vec![b' '; 200 << 20];
    let bomb = zstd(80, &[b".version 8.0\n", &zeros[..]].concat());
    let one = fatbin(&[bomb]);
    assert!(one.len() < 64 << 10);
    assert_eq!(select(&one.repeat(4), 86), Err(ImageError::TooLarge));
}
