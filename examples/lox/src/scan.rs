//! Source text to tokens, one at a time.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its text")]
pub(crate) enum TokenKind {
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    Comma,
    Dot,
    Minus,
    Plus,
    Semicolon,
    Slash,
    Star,
    Bang,
    BangEqual,
    Equal,
    EqualEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Identifier,
    String,
    Number,
    And,
    Class,
    Else,
    False,
    For,
    Fun,
    If,
    Nil,
    Or,
    Print,
    Return,
    Super,
    This,
    True,
    Var,
    While,
    /// A character that begins no token.
    Unexpected,
    /// A string without its closing quote.
    Unterminated,
    EndOfFile,
}

/// A piece of the source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'src> {
    /// What it is.
    pub(crate) kind: TokenKind,
    /// Its text; a string's has its quotes.
    pub(crate) text: &'src str,
    /// The line it ends on, from 1.
    pub(crate) line: u32,
    /// Where it begins, in bytes.
    pub(crate) offset: usize,
}

/// Reads tokens from a text. A copy of it is a place to come back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanner<'src> {
    source: &'src str,
    at: usize,
    line: u32,
}

impl<'src> Scanner<'src> {
    /// A scanner at the start of `source`.
    pub(crate) fn new(source: &'src str) -> Self {
        Self {
            source,
            at: 0,
            line: 1,
        }
    }

    /// The next token; `EndOfFile` again and again at the end.
    pub(crate) fn next_token(&mut self) -> Token<'src> {
        self.skip_blanks();
        let start = self.at;
        let kind = match self.advance() {
            None => TokenKind::EndOfFile,
            Some(b'"') => self.string(),
            Some(b'0'..=b'9') => self.number(),
            Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => self.word(start),
            Some(byte) => self.symbol(byte),
        };
        Token {
            kind,
            text: &self.source[start..self.at],
            line: self.line,
            offset: start,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.source.as_bytes().get(self.at).copied()
    }

    fn peek_second(&self) -> Option<u8> {
        self.source.as_bytes().get(self.at + 1).copied()
    }

    fn advance(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        if byte == b'\n' {
            self.line += 1;
        }
        Some(byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        if taken {
            self.advance();
        }
        taken
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\r' | b'\t' | b'\n' | 0x0c) => {
                    self.advance();
                }
                Some(b'/') if self.peek_second() == Some(b'/') => {
                    while self.peek().is_some_and(|byte| byte != b'\n') {
                        self.advance();
                    }
                }
                _ => return,
            }
        }
    }

    fn string(&mut self) -> TokenKind {
        loop {
            match self.advance() {
                Some(b'"') => return TokenKind::String,
                Some(_) => {}
                None => return TokenKind::Unterminated,
            }
        }
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.advance();
        }
    }

    fn number(&mut self) -> TokenKind {
        self.digits();
        if self.peek() == Some(b'.') && self.peek_second().is_some_and(|b| b.is_ascii_digit()) {
            self.advance();
            self.digits();
        }
        TokenKind::Number
    }

    fn word(&mut self, start: usize) -> TokenKind {
        while self
            .peek()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            self.advance();
        }
        match &self.source[start..self.at] {
            "and" => TokenKind::And,
            "class" => TokenKind::Class,
            "else" => TokenKind::Else,
            "false" => TokenKind::False,
            "for" => TokenKind::For,
            "fun" => TokenKind::Fun,
            "if" => TokenKind::If,
            "nil" => TokenKind::Nil,
            "or" => TokenKind::Or,
            "print" => TokenKind::Print,
            "return" => TokenKind::Return,
            "super" => TokenKind::Super,
            "this" => TokenKind::This,
            "true" => TokenKind::True,
            "var" => TokenKind::Var,
            "while" => TokenKind::While,
            _ => TokenKind::Identifier,
        }
    }

    fn symbol(&mut self, byte: u8) -> TokenKind {
        let mut or_equal = |alone, with_equal| if self.take(b'=') { with_equal } else { alone };
        match byte {
            b'(' => TokenKind::LeftParen,
            b')' => TokenKind::RightParen,
            b'{' => TokenKind::LeftBrace,
            b'}' => TokenKind::RightBrace,
            b',' => TokenKind::Comma,
            b'.' => TokenKind::Dot,
            b'-' => TokenKind::Minus,
            b'+' => TokenKind::Plus,
            b';' => TokenKind::Semicolon,
            b'/' => TokenKind::Slash,
            b'*' => TokenKind::Star,
            b'!' => or_equal(TokenKind::Bang, TokenKind::BangEqual),
            b'=' => or_equal(TokenKind::Equal, TokenKind::EqualEqual),
            b'<' => or_equal(TokenKind::Less, TokenKind::LessEqual),
            b'>' => or_equal(TokenKind::Greater, TokenKind::GreaterEqual),
            _ => {
                // The rest of a character of several bytes.
                while !self.source.is_char_boundary(self.at) {
                    self.at += 1;
                }
                TokenKind::Unexpected
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<TokenKind> {
        let mut scanner = Scanner::new(source);
        std::iter::from_fn(|| {
            let kind = scanner.next_token().kind;
            (kind != TokenKind::EndOfFile).then_some(kind)
        })
        .collect()
    }

    #[test]
    fn a_number_keeps_its_fraction_and_leaves_a_trailing_dot() {
        assert_eq!(kinds("1.5"), [TokenKind::Number]);
        assert_eq!(kinds("1."), [TokenKind::Number, TokenKind::Dot]);
    }

    #[test]
    fn a_string_of_several_lines_counts_them() {
        let mut scanner = Scanner::new("\"a\nb\" x");
        assert_eq!(scanner.next_token().line, 2);
        assert_eq!(scanner.next_token().text, "x");
        assert_eq!(kinds("\"open"), [TokenKind::Unterminated]);
    }

    #[test]
    fn a_character_outside_ascii_is_one_unexpected_token() {
        assert_eq!(kinds("é+"), [TokenKind::Unexpected, TokenKind::Plus]);
    }
}
