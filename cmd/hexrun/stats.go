package main

import (
	"fmt"
	"io"
	"math"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/hexkv"
)

// writeStats prints speed, and the cache by tier beside what stock caches of the same context take. replied counts the
// tokens that were printed; the last one of each reply is not decoded, so s has fewer.
func writeStats(w io.Writer, s hexkv.Stats, replied int) {
	speed := func(what string, tokens int, rate float64) {
		switch {
		case tokens == 1 && rate == 0: // the first one of a reply comes with the prompt
			fmt.Fprintf(w, "%-8s 1 token\n", what)
		case tokens > 0:
			fmt.Fprintf(w, "%-8s %s tokens, %s tokens/s\n", what, human.Count(tokens), human.Rate(rate))
		}
	}
	if s.PrefillTokens == 0 && s.DecodeTokens > 0 { // decoded as a token of a reply is, and in its time
		fmt.Fprintf(w, "%-8s 1 token, timed with the reply\n", "prompt")
	}
	speed("prompt", s.PrefillTokens, s.PrefillRate())
	speed("reply", replied, s.DecodeRate())
	fmt.Fprintf(w, "%-8s %s of %s tokens\n", "context", human.Count(s.Used), human.Count(s.ContextSize))
	fmt.Fprintf(w, "%-8s %s\n", "cache", cacheLine(s))
	fmt.Fprintf(w, "%-8s %s\n", "tiers", tiers(s, 1))
	onHost := s.KV
	for _, g := range s.GPUs {
		part := float64(g.KV) / float64(max(1, s.KV))
		fmt.Fprintf(w, "%-8s %s", g.Name, human.Bytes(g.KV+g.Compute))
		if g.KV > 0 {
			fmt.Fprintf(w, ": %s", tiers(s, part))
		}
		if g.KV > 0 && g.KV != s.KV { // exact where layers are alike, as each lies on one device with all of its tiers
			fmt.Fprintf(w, " (by its share of %s)", human.Percent(part))
		}
		fmt.Fprintf(w, ", buffers %s\n", human.Bytes(g.Compute))
		onHost -= min(onHost, g.KV)
	}
	if len(s.GPUs) > 0 && onHost > 0 {
		fmt.Fprintf(w, "%-8s %s of the cache\n", "host", human.Bytes(onHost))
	}
	if s.HEX && s.Entries > 0 {
		share := func(n uint64) string { return human.Percent(float64(n) / float64(s.Entries)) }
		backbone := ", backbone " + share(s.RefinedStatic)
		if s.Channels {
			backbone = "; backbone " + share(s.RefinedStatic) + " of the channels of every entry"
		}
		fmt.Fprintf(w, "%-8s %s of the entries: recent and sinks %s, heavy hitters %s%s\n", "refined",
			share(s.RefinedEntries()), share(s.RefinedRing), share(s.RefinedHeavy), backbone)
	}
}

// tiers says what each tier takes of a part of the cache.
func tiers(s hexkv.Stats, part float64) string {
	size := func(n uint64) string { return human.Bytes(uint64(math.Round(float64(n) * part))) }
	line := fmt.Sprintf("base K %s, base V %s", size(s.BaseK), size(s.BaseV))
	if s.Refined > 0 || s.State > 0 {
		line += fmt.Sprintf(", refined %s, state %s", size(s.Refined), size(s.State))
	}
	return line
}

// cacheLine says what the cache takes, and what stock caches would.
func cacheLine(s hexkv.Stats) string {
	line := fmt.Sprintf("%s, %.2f bits per element", human.Bytes(s.KV), s.BitsPerElement)
	if s.BitsPerElement <= 0 {
		return line
	}
	elements := math.Round(float64(s.KV) * 8 / s.BitsPerElement) // a whole number, so that bytes agree to the last one
	stock := func(bits float64) string { return human.Bytes(uint64(elements * bits / 8)) }
	return line + fmt.Sprintf(" (f16 %s, q8_0 %s, q4_0 %s)", stock(16), stock(8.5), stock(4.5))
}
