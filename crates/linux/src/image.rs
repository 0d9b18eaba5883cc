//! What a kernel image says of itself.

/// Whether the kernel has 64 bits: a boot loader's image (`bzImage`), whose header says so
/// (Documentation/x86/boot.rst, `xloadflags`, protocol 2.12 and later), or the kernel proper, an
/// ELF file. `None` where neither tells.
#[must_use]
pub fn is_64_bit(image: &[u8]) -> Option<bool> {
    if image.starts_with(b"\x7fELF") {
        return match image.get(4)? {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        };
    }
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let number = |at: usize| Some(u16::from_le_bytes(image.get(at..at + 2)?.try_into().ok()?));
    if number(0x206)? < 0x20c {
        return None;
    }
    Some(number(0x236)? & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_tells_how_many_bits_its_kernel_has() {
        assert_eq!(is_64_bit(b"\x7fELF\x02\x01\x01\0"), Some(true));
        assert_eq!(is_64_bit(b"\x7fELF\x01\x01\x01\0"), Some(false));
        let mut image = vec![0; 0x240];
        assert_eq!(is_64_bit(&image), None);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&[0x0f, 2]);
        assert_eq!(is_64_bit(&image), Some(false));
        image[0x236] = 0x7f;
        assert_eq!(is_64_bit(&image), Some(true));
        // Protocol 2.11 has no such word.
        image[0x206] = 0x0b;
        assert_eq!(is_64_bit(&image), None);
        assert_eq!(is_64_bit(b"MZ"), None);
    }
}
