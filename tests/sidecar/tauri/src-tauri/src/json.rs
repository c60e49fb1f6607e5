//! JSON, as little of it as the sidecar's lines need: a line goes in, a value comes out. It takes any JSON there
//! is, refuses everything else with `None`, and never panics, so that a stray line cannot end the application.

const MAX_DEPTH: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(pairs) => pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Json::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub fn number(&self, name: &str) -> Option<f64> {
        match self.get(name) {
            Some(Json::Number(number)) => Some(*number),
            _ => None,
        }
    }
}

/// Write `text` as a JSON string.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for each in text.chars() {
        match each {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            each if u32::from(each) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(each))),
            each => out.push(each),
        }
    }
    out + "\""
}

/// Read one value that fills `text`; `None` when it is not JSON.
pub fn parse(text: &str) -> Option<Json> {
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    reader.space();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn eat(&mut self, word: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        match self.rest.as_bytes().first()? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Json::Text),
            b't' => self.eat("true").map(|()| Json::Bool(true)),
            b'f' => self.eat("false").map(|()| Json::Bool(false)),
            b'n' => self.eat("null").map(|()| Json::Null),
            _ => self.digits(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.eat("{")?;
        let mut pairs = Vec::new();
        self.space();
        if self.eat("}").is_some() {
            return Some(Json::Object(pairs));
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.eat(":")?;
            pairs.push((name, self.value(depth + 1)?));
            self.space();
            if self.eat("}").is_some() {
                return Some(Json::Object(pairs));
            }
            self.eat(",")?;
        }
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        self.eat("[")?;
        let mut values = Vec::new();
        self.space();
        if self.eat("]").is_some() {
            return Some(Json::List(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            self.space();
            if self.eat("]").is_some() {
                return Some(Json::List(values));
            }
            self.eat(",")?;
        }
    }

    fn digits(&mut self) -> Option<Json> {
        let all = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !all(c)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        let bare = number.strip_prefix('-').unwrap_or(number);
        let whole = bare.find(|c: char| !c.is_ascii_digit()).unwrap_or(bare.len());
        let zeros = bare.starts_with('0') && whole > 1;
        let stump = bare.contains(".e") || bare.contains(".E") || bare.ends_with('.');
        if whole == 0 || zeros || stump {
            return None;
        }
        self.rest = rest;
        number.parse().ok().filter(|found: &f64| found.is_finite()).map(Json::Number)
    }

    fn string(&mut self) -> Option<String> {
        self.eat("\"")?;
        let mut out = String::new();
        loop {
            let next = self.take()?;
            match next {
                '"' => return Some(out),
                '\\' => out.push(self.escape()?),
                next if u32::from(next) < 0x20 => return None,
                next => out.push(next),
            }
        }
    }

    fn take(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.take()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.unicode(),
            plain @ ('"' | '\\' | '/') => plain,
            _ => return None,
        })
    }

    fn unicode(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.eat("\\u")?;
        let second = self.unit()?;
        if !(0xdc00..0xe000).contains(&second) {
            return None;
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4)?;
        if !digits.bytes().all(|each| each.is_ascii_hexdigit()) {
            return None;
        }
        self.rest = &self.rest[4..];
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind_are_read() {
        let found = parse(r#" {"a": [1, -2.5e1, true, false, null, "x"], "b": {}} "#).unwrap();
        let list = vec![
            Json::Number(1.0),
            Json::Number(-25.0),
            Json::Bool(true),
            Json::Bool(false),
            Json::Null,
            Json::Text("x".into()),
        ];
        assert_eq!(found.get("a"), Some(&Json::List(list)));
        assert_eq!(found.get("b"), Some(&Json::Object(vec![])));
    }

    #[test]
    fn strings_keep_every_character() {
        assert_eq!(parse(r#""\u00e9\ud83d\ude00\n\"""#), Some(Json::Text("é😀\n\"".into())));
        for text in ["", "ü😀\u{1}\\\"\n", "/tmp/a b"] {
            assert_eq!(parse(&quote(text)), Some(Json::Text(text.into())));
        }
    }

    #[test]
    fn what_is_no_json_is_refused_and_nothing_panics() {
        let wrong = [
            "",
            "{",
            "}",
            "[1,",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "tru",
            "nul",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e999",
            "\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\u12",
            "\"\\u+123\"",
            "\"a\nb\"",
            "1 2",
            "NaN",
            "{1:2}",
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"[".repeat(100_000)), None);
    }

    #[test]
    fn a_line_cut_anywhere_is_refused() {
        let line = r#"{"type":"ready","v":1,"x":["é",{"y":null}]}"#;
        for end in (0..line.len()).filter(|end| line.is_char_boundary(*end)) {
            assert_eq!(parse(&line[..end]), None, "{}", &line[..end]);
        }
        assert!(parse(line).is_some());
    }
}
