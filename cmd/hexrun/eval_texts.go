package main

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"slices"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/corpus"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/hexkv"
)

// evalText is a text to measure on.
type evalText struct{ name, text, hash string }

func newEvalText(name, text string) evalText {
	sum := sha256.Sum256([]byte(text))
	return evalText{name, text, hex.EncodeToString(sum[:])}
}

// evalTexts reads the files, or takes the bundled text without any.
func evalTexts(e *env, paths []string) ([]evalText, error) {
	if len(paths) == 0 {
		return []evalText{newEvalText(corpus.Name, corpus.Text)}, nil
	}
	var all []evalText
	for _, path := range paths {
		data, err := readText(e, path)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(path)
		if path == "-" {
			name = "standard input"
		}
		t := newEvalText(name, data)
		for _, other := range all {
			if other.hash == t.hash {
				return nil, usagef("-f %s: %s is the same text; name each text once", path, other.name)
			}
		}
		all = append(all, t)
	}
	return all, nil
}

// window is a part of a text that caches read from an empty context.
type window struct {
	hash   string // of the text
	first  int    // token of the text, counted without BOS
	tokens []hexkv.TokenID
}

// leastWindow is the least length that has a second half and last positions worth the names.
const leastWindow = 128

// cutWindows cuts windows of size tokens that follow each other. Each begins with the tokens that the model wants at the start,
// which count towards size.
func cutWindows(m *hexkv.Model, t evalText, start, size, count int) ([]window, error) {
	if size < leastWindow {
		return nil, usagef("-c %d: windows of so few tokens say little; use %d or more", size, leastWindow)
	}
	tokens, err := m.Tokenize(t.text, hexkv.TokenizeOptions{})
	if err != nil {
		return nil, err
	}
	head, err := beginning(m)
	if err != nil {
		return nil, err
	}
	each := size - len(head)
	if whole := max(0, len(tokens)-start) / each; whole < count {
		return nil, usagef("%s has %s tokens, too few for %s of %s from token %s on; use fewer or shorter windows (--windows, -c), or a longer text (-f)",
			t.name, human.Count(len(tokens)), plural(count, "window"), human.Count(size), human.Count(start))
	}
	windows := make([]window, count)
	for i := range windows {
		first := start + i*each
		windows[i] = window{t.hash, first, slices.Concat(head, tokens[first:first+each])}
	}
	return windows, nil
}

// beginning returns the tokens that the model wants before a text: BOS or nothing.
func beginning(m *hexkv.Model) ([]hexkv.TokenID, error) {
	const probe = "a"
	plain, err := m.Tokenize(probe, hexkv.TokenizeOptions{})
	if err != nil {
		return nil, err
	}
	special, err := m.Tokenize(probe, hexkv.TokenizeOptions{AddSpecial: true})
	if err != nil {
		return nil, err
	}
	for i := 0; i+len(plain) <= len(special); i++ { // an end token may follow
		if slices.Equal(special[i:i+len(plain)], plain) {
			return special[:i], nil
		}
	}
	return nil, nil
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return human.Count(n) + " " + what
}
