//! Tests of the intermediate representation: text form, verifier, files, evaluation.

extern crate virtuoso_ir as ir;

mod eval;
mod file;
mod filetests;
mod generate;
mod lanes;
mod text;
mod verify;
