// Package grid reads which caches a run of hexrun eval measures.
package grid

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hexkv/hexkv/hexkv"
)

// Setting is one cache to measure.
type Setting struct {
	Label  string // for tables; the specification where the user gave none
	Spec   string // as the user wrote it
	Config hexkv.Config
}

// Grid is a list of settings without repetitions. The zero value is empty.
type Grid struct {
	Settings []Setting
}

// List adds the settings of a list whose entries are separated by commas.
func (g *Grid) List(list string) error {
	for _, spec := range strings.Split(list, ",") {
		if spec = strings.TrimSpace(spec); spec != "" {
			if err := g.add(spec, spec); err != nil {
				return err
			}
		}
	}
	return nil
}

// File adds the settings of a grid file: one on each line, as a specification or as `label = specification` with spaces
// around the sign, since specifications have signs of their own. What follows a # is a comment.
func (g *Grid) File(name, text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s is not valid UTF-8; convert it to UTF-8", name)
	}
	for i, line := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		spec := words[len(words)-1]
		label := spec
		if len(words) > 1 {
			if words[len(words)-2] != "=" || len(words) == 2 {
				return usage("%s line %d: %q is not understood; write one cache per line, or label = cache", name, i+1, strings.TrimSpace(line))
			}
			label = strings.Join(words[:len(words)-2], " ")
		}
		if err := g.add(label, spec); err != nil {
			return fmt.Errorf("%s line %d: %w", name, i+1, err)
		}
	}
	return nil
}

func (g *Grid) add(label, spec string) error {
	config, err := hexkv.ParseConfig(spec)
	if err != nil {
		return err
	}
	if strings.ContainsFunc(label, func(r rune) bool { return r == '|' || !unicode.IsPrint(r) }) {
		return usage("the label %q has a sign that a table cannot show; use letters, digits and spaces", label)
	}
	for _, s := range g.Settings {
		if s.Spec == spec {
			return usage("%s is named twice; name each cache once", spec)
		}
		if s.Label == label {
			return usage("the label %q is used twice; give each cache a label of its own", label)
		}
	}
	g.Settings = append(g.Settings, Setting{label, spec, config})
	return nil
}

// usage is an error of the caller's settings.
func usage(format string, args ...any) error {
	return &hexkv.Error{Code: hexkv.CodeConfig, Op: "eval", Text: fmt.Sprintf(format, args...)}
}
