//! Decoding within a budget of memory.
//!
//! What a body of bytes becomes can be many times as large: an element of a list may be one or two
//! bytes in the file and a hundred in memory. [`Metered`] stands around a deserializer and around
//! everything that it hands out, and counts what each element of a list takes in memory before it
//! is decoded; where that is more than the budget, decoding ends with an error. Nothing is reserved
//! for elements that are only announced: serde allocates by its own caution, a megabyte at most.

use std::cell::Cell;
use std::mem::size_of;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// What an entry of a map takes beside key and value: its share of a tree's node.
const MAP_ENTRY: usize = 16;

/// A part of a deserializer, with the budget that all parts share.
pub(crate) struct Metered<'b, T> {
    inner: T,
    /// Bytes that may still be allocated.
    left: &'b Cell<usize>,
    /// Whether elements are a list's, and not the fields of something counted already.
    list: bool,
}

impl<'b, T> Metered<'b, T> {
    /// Counts what comes of `inner` against `left`.
    pub const fn new(inner: T, left: &'b Cell<usize>) -> Self {
        Self { inner, left, list: false }
    }

    const fn with<U>(&self, inner: U) -> Metered<'b, U> {
        Metered { inner, left: self.left, list: self.list }
    }

    const fn list<U>(&self, inner: U, list: bool) -> Metered<'b, U> {
        Metered { inner, left: self.left, list }
    }

    /// Nothing is left after a failure: that tells it from others, for which some decoders keep no
    /// text.
    #[inline]
    fn take<E: Error>(&self, bytes: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(bytes);
        self.left.set(left.unwrap_or(0));
        left.map(drop).ok_or_else(|| E::custom("it takes more memory than a file of its size may"))
    }
}

/// Methods of [`Deserializer`] that only hand on a visitor. A list's elements are counted where it
/// is `true`.
macro_rules! hand_on {
    ($($name:ident($($argument:ident: $type:ty),*) $list:literal,)*) => {$(
        fn $name<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.list(visitor, $list);
            self.inner.$name($($argument,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Metered<'_, D> {
    type Error = D::Error;

    hand_on! {
        deserialize_any() true,
        deserialize_bool() true,
        deserialize_i8() true,
        deserialize_i16() true,
        deserialize_i32() true,
        deserialize_i64() true,
        deserialize_i128() true,
        deserialize_u8() true,
        deserialize_u16() true,
        deserialize_u32() true,
        deserialize_u64() true,
        deserialize_u128() true,
        deserialize_f32() true,
        deserialize_f64() true,
        deserialize_char() true,
        deserialize_str() true,
        deserialize_string() true,
        deserialize_bytes() true,
        deserialize_byte_buf() true,
        deserialize_option() true,
        deserialize_unit() true,
        deserialize_unit_struct(name: &'static str) true,
        deserialize_newtype_struct(name: &'static str) true,
        deserialize_seq() true,
        deserialize_tuple(len: usize) false,
        deserialize_tuple_struct(name: &'static str, len: usize) false,
        deserialize_map() true,
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) false,
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) true,
        deserialize_identifier() true,
        deserialize_ignored_any() true,
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Methods of [`Visitor`] that only hand on a value.
macro_rules! visit {
    ($($name:ident $type:ty,)*) => {$(
        #[inline]
        fn $name<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$name(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Metered<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.expecting(formatter)
    }

    visit! {
        visit_bool bool,
        visit_i8 i8,
        visit_i16 i16,
        visit_i32 i32,
        visit_i64 i64,
        visit_i128 i128,
        visit_u8 u8,
        visit_u16 u16,
        visit_u32 u32,
        visit_u64 u64,
        visit_u128 u128,
        visit_f32 f32,
        visit_f64 f64,
        visit_char char,
        visit_str &str,
        visit_borrowed_str &'de str,
        visit_string String,
        visit_bytes &[u8],
        visit_borrowed_bytes &'de [u8],
        visit_byte_buf Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let inner = self.with(inner);
        self.inner.visit_some(inner)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let inner = self.with(inner);
        self.inner.visit_newtype_struct(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.with(inner);
        self.inner.visit_seq(inner)
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.with(inner);
        self.inner.visit_map(inner)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.with(inner);
        self.inner.visit_enum(inner)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Metered<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let inner = self.with(inner);
        self.inner.deserialize(inner)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Metered<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        if self.list {
            self.take(size_of::<T::Value>())?;
        }
        let seed = self.with(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Metered<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.take(size_of::<K::Value>() + MAP_ENTRY)?;
        let seed = self.with(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.take(size_of::<T::Value>())?;
        let seed = self.with(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Metered<'b, A> {
    type Error = A::Error;
    type Variant = Metered<'b, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        let (seed, rest) = (self.with(seed), self.with(()));
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, rest.with(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Metered<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.list(visitor, false);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.list(visitor, false);
        self.inner.struct_variant(fields, visitor)
    }
}
