//! Modules in the binary format, byte by byte: what the text format cannot say, or would take long to parse.

#![allow(dead_code, reason = "no test needs all of it")]

/// Value types.
pub(crate) const I32: u8 = 0x7f;
pub(crate) const F64: u8 = 0x7c;

/// An unsigned number in LEB128.
pub(crate) fn leb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// A number of items, then the items.
pub(crate) fn vector(items: &[Vec<u8>]) -> Vec<u8> {
    [leb(items.len() as u64), items.concat()].concat()
}

/// A length in bytes, then the bytes.
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    [&leb(bytes.len() as u64), bytes].concat()
}

/// A section with any contents.
pub(crate) fn section(id: u8, contents: &[u8]) -> Vec<u8> {
    [vec![id], sized(contents)].concat()
}

/// A module out of sections.
pub(crate) fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat()
}

/// A function type.
pub(crate) fn function_type(parameters: &[u8], results: &[u8]) -> Vec<u8> {
    [vec![0x60], sized(parameters), sized(results)].concat()
}

/// Sections.
pub(crate) fn types(types: &[Vec<u8>]) -> Vec<u8> {
    section(1, &vector(types))
}

/// The type of each function.
pub(crate) fn functions(types: &[u64]) -> Vec<u8> {
    section(3, &vector(&types.iter().map(|ty| leb(*ty)).collect::<Vec<_>>()))
}

/// Functions exported under names.
pub(crate) fn exports(functions: &[(&str, u64)]) -> Vec<u8> {
    let export = |(name, index): &(&str, u64)| [sized(name.as_bytes()), vec![0], leb(*index)].concat();
    section(7, &vector(&functions.iter().map(export).collect::<Vec<_>>()))
}

/// Function bodies.
pub(crate) fn code(bodies: &[Vec<u8>]) -> Vec<u8> {
    section(10, &vector(bodies))
}

/// A function body: runs of locals and instructions without the last `end`.
pub(crate) fn body(locals: &[(u64, u8)], instructions: &[u8]) -> Vec<u8> {
    let locals: Vec<_> = locals.iter().map(|(count, ty)| [leb(*count), vec![*ty]].concat()).collect();
    sized(&[vector(&locals), instructions.to_vec(), vec![0x0b]].concat())
}

/// A module whose `_start` has these locals and instructions.
pub(crate) fn start(locals: &[(u64, u8)], instructions: &[u8]) -> Vec<u8> {
    module(&[types(&[function_type(&[], &[])]), functions(&[0]), exports(&[("_start", 0)]), code(&[body(locals, instructions)])])
}
