package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/hexkv/hexkv/hexkv"
)

// flagOf maps the names that errors of the library use to the flags that set them.
var flagOf = map[string]string{
	"context size": "-c", "ContextSize": "-c", "batch size": "-b", "BatchSize": "-b", "ubatch size": "-ub", "UBatchSize": "-ub",
	"threads": "-t", "Threads": "-t", "Temperature": "--temp", "TopK": "--top-k", "TopP": "--top-p", "MinP": "--min-p",
	"RepeatPenalty": "--repeat-penalty", "HEX preset": "--hex", "cache type of K": "-ctk", "cache type of V": "-ctv",
	"refine": "--hex-refine", "backbone_kind": "--hex-backbone-kind", "seed": "--hex-seed",
	"sink": "--hex-sink", "n_sink": "--hex-sink", "Sink": "--hex-sink",
	"recent": "--hex-recent", "n_recent": "--hex-recent", "Recent": "--hex-recent",
	"heavy": "--hex-heavy", "Heavy": "--hex-heavy", "backbone": "--hex-backbone", "Backbone": "--hex-backbone",
	"mean": "--hex-mean", "n_mean": "--hex-mean", "Mean": "--hex-mean",
	"half_life": "--hex-half-life", "HalfLife": "--hex-half-life", "unbias": "--hex-unbias", "Unbias": "--hex-unbias",
}

var (
	settingName = func() *regexp.Regexp {
		var names []string
		for name := range flagOf {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) }) // "ubatch size" before "batch size"
		return regexp.MustCompile(`(^|\b(?:but|leave|use|and) )(` + strings.Join(names, "|") + `)( = | '| is | out$)`)
	}()
	assigned  = regexp.MustCompile(`\b(refine) = `) // also inside a sentence
	otherType = regexp.MustCompile(`^preset (\S+) stores ([KV]) in hex1 to hex4, but its cache type is set to (\S+); .*$`)
)

// inFlags names flags instead of settings in errors of the settings that flags made; the text of a cache specification
// (--caches) has the library's names as its keys, so its errors keep them.
func inFlags(err error) error {
	h, ok := err.(*hexkv.Error)
	if !ok || h.Code != hexkv.CodeConfig {
		return err
	}
	switch h.Op {
	case "Config.Validate", "Sampling.Validate", "Model.NewSession", "Model.Estimate":
	default:
		return err
	}
	named := *h
	named.Text = flagsInText(h.Text)
	return &named
}

func flagsInText(text string) string {
	if m := otherType.FindStringSubmatch(text); m != nil {
		return "--hex " + m[1] + " stores " + m[2] + " in hex1 to hex4, but -ct" + strings.ToLower(m[2]) + " is " + m[3] +
			"; leave one of them out"
	}
	text = settingName.ReplaceAllStringFunc(text, func(s string) string {
		m := settingName.FindStringSubmatch(s)
		if m[3] == " = " {
			m[3] = " "
		}
		return m[1] + flagOf[m[2]] + m[3]
	})
	text = assigned.ReplaceAllStringFunc(text, func(s string) string { return flagOf[strings.TrimSuffix(s, " = ")] + " " })
	return strings.Replace(text, "choose a preset such as balanced", "choose a preset such as --hex balanced", 1)
}
