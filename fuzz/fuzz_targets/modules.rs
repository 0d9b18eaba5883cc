//! Any bytes are a file of modules or an error; whatever an object says, no code of it is read
//! outside of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(modules) = ir::Objects::from_bytes(data, [0; 32]) {
        check(&modules);
    }
    // Any bytes are what an object says of itself, with as much code as it wants.
    if let Ok(file) = ir::relocatable::with_object(data)
        && let Ok(modules) = ir::Objects::from_bytes(&file, [0; 32])
    {
        check(&modules);
    }
});

fn check(modules: &ir::Objects) {
    for object in (0..modules.len() as u32).filter_map(|number| modules.object(number)) {
        for section in 0..object.sections.len() as u16 {
            assert_eq!(object.fixed(section).len(), object.sections[usize::from(section)].code.len());
            let _ = (object.fields_in(section, 3, 9), object.load_sites_in(section, 3, 9));
        }
    }
    let _ = modules.recognise(&[7; 64]).count();
}
