//! Values and programs as people read them.

use engine::Value;
use ir::program::{Callee, Count, Elem, Field, Function, Target, Terminator};
use ir::{Arg, Kind, Op, Var};
use machine::Reg;

/// Columns that folded lists fill.
const COLUMNS: usize = 100;
/// Numbers from here on are addresses more likely than counts.
const ADDRESS: u64 = 1 << 32;

/// A value for people: addresses in hexadecimal, lists folded under `indent` columns.
#[must_use]
pub fn value(value: &Value, indent: usize) -> String {
    match value {
        Value::Unsigned(number) if *number >= ADDRESS => format!("{number:#x}"),
        Value::Unsigned(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Text(text) => format!("\"{}\"", text.escape_debug()),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| self::value(item, indent)).collect();
            format!("[{}]", fold(&items, indent + 1))
        }
    }
}

/// Items separated by spaces, broken into lines that begin under the first item.
fn fold(items: &[String], indent: usize) -> String {
    let (mut text, mut column) = (String::new(), indent);
    for (at, item) in items.iter().enumerate() {
        if at > 0 && column + 1 + item.len() > COLUMNS {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if at > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(item);
        column += item.len();
    }
    text
}

/// Bytes with a unit.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..0x2800 => format!("{bytes} bytes"),
        0x2800..0xa0_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        0xa0_0000..0x2_8000_0000 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// An input or output as its marker declares it.
#[must_use]
pub fn field(field: &Field) -> String {
    let elem = match field.elem {
        Elem::Unsigned(bytes) => format!("u{}", 8 * u32::from(bytes)),
        Elem::Signed(bytes) => format!("i{}", 8 * u32::from(bytes)),
        Elem::Char => "cstr".to_string(),
    };
    let count = match &field.count {
        Count::One => String::new(),
        Count::Fixed(count) => format!("[{count}]"),
        Count::Field { name, max } => format!("[{name}<={max}]"),
    };
    format!("{}:{elem}{count}", field.name)
}

/// A register's or temporary's name.
#[must_use]
pub fn var(var: Var) -> String {
    if var.is_temp() {
        return format!("t{}", var.0 - Var::FIRST_TEMP);
    }
    Reg::from_index(var.0.into()).map_or_else(|| format!("r#{}", var.0), |reg| reg.name().to_string())
}

fn arg(arg: Arg) -> String {
    match arg {
        Arg::Var(it) => var(it),
        Arg::Const(value @ 0..10) => value.to_string(),
        Arg::Const(value) => format!("{value:#x}"),
    }
}

/// An operation: `t0 = add.64 rsp, 8`.
#[must_use]
pub fn op(op: &Op) -> String {
    let args: Vec<String> = op.args().iter().map(|&it| arg(it)).collect();
    let (name, bits) = (op.kind.name(), op.width.bits());
    let right = format!("{name}.{bits} {}", args.join(", "));
    let note = match (op.kind, op.args[0]) {
        (Kind::Unsupported, Arg::Const(id)) => format!("  ; {}", lift::mnemonic_name(id)),
        _ => String::new(),
    };
    let left = op.def().map(|dst| format!("{} = ", var(dst))).unwrap_or_default();
    format!("{left}{}{note}", right.trim_end())
}

/// A block's end, with functions by number and name.
#[must_use]
pub fn terminator(term: &Terminator, functions: &[Function]) -> String {
    let function = |id: ir::program::FuncId| match functions.get(id.0 as usize) {
        Some(function) if !function.name.is_empty() => format!("#{} {}", id.0, function.name),
        _ => format!("#{}", id.0),
    };
    let target = |target: Target| match target {
        Target::Block(id) => format!("block {}", id.0),
        Target::Tail(id) => format!("function {}", function(id)),
        Target::Return => "return".to_string(),
        Target::Unexplored(pc) => format!("UNEXPLORED {pc:#x}"),
    };
    match term {
        Terminator::Goto(to) => format!("goto {}", target(*to)),
        Terminator::Branch { cond, taken, otherwise } => {
            let guard = if is_guard(term) { "guard" } else { "branch" };
            format!("{guard} {} ? {} : {}", arg(*cond), target(*taken), target(*otherwise))
        }
        Terminator::Switch { value, arms } => {
            let arms: Vec<String> = arms.iter().map(|it| format!("{:#x} -> {}", it.value, target(it.target))).collect();
            format!("switch {} {{ {}; else UNEXPLORED }}", arg(*value), arms.join("; "))
        }
        Terminator::Call { callee: Callee::Direct(id), then, .. } => {
            format!("call {}, then {}", function(*id), target(*then))
        }
        Terminator::Call { callee: Callee::Indirect { value, arms }, then, .. } => {
            let name = |id: Option<ir::program::FuncId>| id.map_or_else(|| "nothing".to_string(), function);
            let arms: Vec<String> = arms.iter().map(|it| format!("{:#x} -> {}", it.value, name(it.target))).collect();
            format!("call {} {{ {}; else UNEXPLORED }}, then {}", arg(*value), arms.join("; "), target(*then))
        }
        Terminator::End => "end".to_string(),
    }
}

/// Whether it is a branch of which training saw one side only.
#[must_use]
pub fn is_guard(term: &Terminator) -> bool {
    let unexplored = |target: &Target| matches!(target, Target::Unexplored(_));
    matches!(term, Terminator::Branch { taken, otherwise, .. } if unexplored(taken) != unexplored(otherwise))
}

/// A number from the command line, decimal or with `0x`.
pub fn parse_number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("{error}; give a number such as 4096 or 0x1000"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Width;

    #[test]
    fn lists_fold() {
        let list = Value::List((0..60).map(Value::Unsigned).collect());
        let text = value(&list, 7);
        assert!(text.lines().count() > 1);
        assert!(text.lines().all(|line| line.len() <= COLUMNS + 1), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("        ")), "{text}");
    }

    #[test]
    fn values() {
        assert_eq!(value(&Value::Unsigned(0xffff_ffff_c000_0000), 0), "0xffffffffc0000000");
        assert_eq!(value(&Value::Signed(-2), 0), "-2");
        assert_eq!(value(&Value::Text("a\x1b\"".into()), 0), "\"a\\u{1b}\\\"\"");
    }

    #[test]
    fn operations() {
        let add = Op::new(Kind::Add, Width::B64, Var::temp(0), &[Var(4).into(), 16.into()]);
        assert_eq!(op(&add), "t0 = add.64 rsp, 0x10");
        assert_eq!(op(&Op::new(Kind::Tsc, Width::B64, Var(0), &[])), "rax = tsc.64");
    }

    #[test]
    fn numbers() {
        assert_eq!(parse_number("0x10"), Ok(16));
        assert!(parse_number("ten").is_err());
    }
}
