//! What a kernel image says of itself, and the kernel in it.

use crate::unpack::{is_packed, unpack};

use crate::banner::Banner;

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

/// The kernel proper, an ELF file, out of a boot loader's image (boot protocol 2.08 and later); the
/// image itself where it is that already. `None` if it has none, or one that cannot be unpacked.
#[must_use]
pub fn kernel_proper(image: &[u8]) -> Option<Vec<u8>> {
    if image.starts_with(b"\x7fELF") {
        return Some(image.to_vec());
    }
    let payload = payload(image)?.to_vec();
    unpack(payload).ok().filter(|kernel| kernel.starts_with(b"\x7fELF"))
}

/// The packed kernel inside an image. The last four bytes of what the header names are its size
/// before that, and belong to no format.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match image.get(0x1f1)? {
        0 => 4,
        &count => usize::from(count),
    };
    let from = ((sectors + 1) * 512).checked_add(number(0x248)?)?;
    let to = from.checked_add(number(0x24c)?)?.checked_sub(4)?;
    image.get(from..to).filter(|payload| is_packed(payload))
}

/// The release of a kernel image, as `uname -r` will print it: a boot loader's image points to it
/// (`kernel_version`), the kernel proper holds its banner. `None` where neither is there, or it is
/// none.
#[must_use]
pub fn release(image: &[u8]) -> Option<String> {
    if image.starts_with(b"\x7fELF") {
        let begin = b"Linux version ";
        let starts = image.windows(begin.len()).enumerate().filter(|(_, bytes)| bytes == begin);
        let banner = starts.filter_map(|(at, _)| Banner::parse(&image[at..])).next()?;
        return Some(banner.release().to_owned());
    }
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let pointer = u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?);
    let text = image.get(usize::from(pointer) + 0x200..)?;
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(byte);
    let length = text.iter().take(65).take_while(|byte| good(byte)).count();
    let release = std::str::from_utf8(&text[..length]).ok()?;
    let is_release = pointer != 0 && length <= 64 && release.starts_with(|c: char| c.is_ascii_digit());
    is_release.then(|| release.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_tells_its_release() {
        let mut image = vec![0; 0x240];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(release(&image), None);
        image[0x20e..0x210].copy_from_slice(&[0x60, 0]);
        image.resize(0x260, 0);
        image.extend(b"6.1.0-57-amd64 (debian-kernel@lists.debian.org) #1 SMP\0");
        assert_eq!(release(&image).as_deref(), Some("6.1.0-57-amd64"));
        image.truncate(0x260);
        image.extend(b"../../etc (x) #1\0");
        assert_eq!(release(&image), None);
        image.truncate(0x250);
        assert_eq!(release(&image), None, "it points behind the end");
        let kernel = b"\x7fELF\x02...Linux version %s\0Linux version 6.12.1 (a) (b) #3 SMP\n\0";
        assert_eq!(release(kernel).as_deref(), Some("6.12.1"));
        assert_eq!(release(b"MZ"), None);
    }

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

    #[test]
    fn the_payload_of_a_boot_image_is_found_and_a_cut_one_is_not() {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&12u32.to_le_bytes());
        image[1040..1048].copy_from_slice(b"\xfd7zXZ\0ab");
        assert_eq!(payload(&image), Some(&b"\xfd7zXZ\0ab"[..]));
        assert_eq!(payload(&image[..1044]), None);
        assert_eq!(payload(b"MZ"), None);
        assert_eq!(kernel_proper(&image), None, "that is no whole file");
        assert_eq!(kernel_proper(b"\x7fELF").as_deref(), Some(&b"\x7fELF"[..]));
    }
}
