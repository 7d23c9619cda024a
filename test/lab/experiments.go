package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// experiment is one table: a run of hexrun eval with a grid of caches.
type experiment struct {
	name  string
	eval  string   // kld, recall or greedy
	model string   // "f32", "q4_1" or "gemma"
	args  []string // of hexrun eval
	grid  []string // lines of the grid file
}

// tuned is the text on which presets and settings were chosen; heldOut served for no decision. The three lengths read the same
// 8,192 tokens of it, so that a plot over lengths shows lengths, not texts.
const (
	tuned   = 20000
	heldOut = 160000
)

var experiments = []experiment{
	{"presets", "kld", "f32", window(2048, heldOut, 4), everyPreset("q8_0", "q5_0", "q4_0")},
	{"presets-4096", "kld", "f32", window(4096, heldOut, 2), everyPreset("q8_0", "q5_0", "q4_0")},
	{"presets-8192", "kld", "f32", window(8192, heldOut, 1), everyPreset("q8_0", "q5_0", "q4_0")},
	{"presets-tuned", "kld", "f32", window(2048, tuned, 2), everyPreset("q8_0", "q5_0", "q4_0")},
	{"presets-tuned-4096", "kld", "f32", window(4096, 80000, 1), []string{"q5_0", "q4_0", "hex:tiny", "hex:compact", "hex:balanced", "hex:quality"}},
	{"presets-default", "kld", "q4_1", window(2048, heldOut, 1), everyPreset("q8_0", "q4_0")},
	{"presets-gemma", "kld", "gemma", window(2048, tuned, 1), []string{"q8_0", "q4_0", "hex:tiny", "hex:compact", "hex:balanced", "hex:quality"}},
	{"ingredients", "kld", "f32", window(2048, tuned, 2), ingredients},
	{"base", "kld", "f32", window(2048, tuned, 2), bases()},
	{"residual", "kld", "f32", window(2048, tuned, 2), residuals},
	{"residual-quality", "kld", "f32", window(2048, tuned, 2), qualityResiduals},
	{"corrections", "kld", "f32", window(2048, tuned, 2), corrections()},
	{"selection", "kld", "f32", window(2048, tuned, 2), selection},
	{"degree", "kld", "f32", window(2048, tuned, 2), degrees},
	{"needle", "recall", "q4_1", []string{"--kind", "needle", "--length", "1024", "--items", "12"}, recalled},
	{"multikey", "recall", "q4_1", []string{"--kind", "multikey", "--length", "1024", "--items", "8"}, recalled},
	{"ruler", "recall", "q4_1", []string{"-f", "niah_multikey_3_4096.jsonl", "--items", "3"}, []string{"q4_0", "hex:balanced"}},
	{"greedy", "greedy", "q4_1", []string{"--prompts", "50", "--predict", "2000"}, []string{"q8_0", "q4_0", "hex:tiny", "hex:balanced", "hex:quality"}},
}

func window(size, start, count int) []string {
	return []string{"-c", strconv.Itoa(size), "--start", strconv.Itoa(start), "--windows", strconv.Itoa(count), "--lockstep", "8"}
}

func everyPreset(stock ...string) []string {
	return append(stock, "hex:tiny", "hex:compact", "hex:balanced", "hex:quality", "hex:paper")
}

// slots is a preset with other slots in a context of 2,048: first and recent tokens together, heavy hitters, and backbone cells of
// each head in more.
func slots(label, preset string, ring, heavy int, more string) string {
	share := (float64(heavy) + 0.25) / 2048
	if heavy == 0 {
		share = 0
	}
	return fmt.Sprintf("%s = hex:%s:recent=%d:heavy=%.5f%s", label, preset, ring-4, share, more)
}

// backbone of so many sixtieths of the context.
func backbone(sixtieths int, kind string) string {
	return fmt.Sprintf(":backbone=%.4f:backbone_kind=%s", float64(sixtieths)/60, kind)
}

// ingredients: slots of 2,048 cells. A backbone of degree 3 of 90 pairs is 68 cells, one of degree 6 is 136, and some of them are
// recent or heavy as well; so the rows have the bytes of tiny but for a hundredth or two of a bit. The first three have no slots.
var ingredients = []string{
	"no refinement = hex:tiny:refine=none",
	"no refinement, K 3 V 2 = hex:compact:refine=none",
	"no refinement, K 4 V 1 = hex:tiny:type_k=hex4:refine=none",
	slots("sinks and recent", "tiny", 304, 0, ""),
	slots("sinks, 28 recent, heavy", "tiny", 32, 272, ""),
	"sinks, recent, heavy = hex:tiny",
	slots("sinks, recent, heavy, expander", "tiny", 128, 108, backbone(2, "expander")),
	slots("sinks, recent, heavy, random", "tiny", 128, 108, backbone(2, "random")),
	slots("sinks, recent, heavy, strided", "tiny", 128, 108, backbone(2, "strided")),
	slots("sinks, recent, heavy, log-spaced", "tiny", 128, 108, backbone(2, "log")),
	slots("sinks, recent, expander", "tiny", 168, 0, backbone(4, "expander")),
	slots("sinks, recent, random", "tiny", 168, 0, backbone(4, "random")),
	slots("sinks, recent, strided", "tiny", 168, 0, backbone(4, "strided")),
	slots("sinks, recent, log-spaced", "tiny", 168, 0, backbone(4, "log")),
	"expander only = hex:tiny:backbone=0.1666:heavy=0:recent=0:sink=0",
	"random only = hex:tiny:backbone=0.1666:heavy=0:recent=0:sink=0:backbone_kind=random",
	"token by channel mask (paper's), 4 sinks = hex:tiny:refine=f16:backbone_kind=channels:backbone=0.0312:heavy=0:recent=0:sink=4",
}

func bases() []string {
	var all []string
	for k := 1; k <= 4; k++ {
		for v := 1; v <= 4; v++ {
			all = append(all, fmt.Sprintf("K %d V %d = hex:compact:type_k=hex%d:type_v=hex%d", k, v, k, v))
		}
	}
	return all
}

// residuals: the bytes of compact, in slots of different sizes.
var residuals = []string{
	slots("hex1, 651 slots", "compact:refine=hex1", 128, 523, ""),
	slots("hex2, 414 slots", "compact:refine=hex2", 128, 286, ""),
	"hex3, 304 slots = hex:compact",
	slots("hex4, 240 slots", "compact:refine=hex4", 128, 112, ""),
	slots("q8_0, 124 slots", "compact:refine=q8_0", 64, 60, ""),
	slots("f16, 67 slots", "compact:refine=f16", 32, 35, ""),
}

// qualityResiduals: the bytes of quality.
var qualityResiduals = []string{
	slots("hex2, 414 slots", "quality:refine=hex2", 128, 286, ""),
	slots("hex3, 304 slots", "quality:refine=hex3", 128, 176, ""),
	"hex4, 240 slots = hex:quality",
}

// corrections: what costs no byte.
func corrections() []string {
	var all []string
	for _, preset := range []string{"tiny", "balanced"} {
		for _, c := range []struct{ label, setting string }{
			{"both", ""}, {"biases left in", ":unbias=0"}, {"half of the biases taken off", ":unbias=0.5"}, {"K not centred", ":mean=0"},
		} {
			all = append(all, fmt.Sprintf("%s, %s = hex:%s%s", preset, c.label, preset, c.setting))
		}
	}
	return all
}

// selection: 304 slots.
var selection = []string{
	"half-life 32 queries = hex:compact:half_life=32",
	"half-life 256 = hex:compact",
	"half-life 2048 = hex:compact:half_life=2048",
	"half-life a million = hex:compact:half_life=1000000",
	"32 recent, 272 heavy = hex:compact:recent=28:heavy=0.1329",
	"64 recent, 240 heavy = hex:compact:recent=60:heavy=0.1173",
	"192 recent, 112 heavy = hex:compact:recent=188:heavy=0.0548",
	"240 recent, 64 heavy = hex:compact:recent=236:heavy=0.0314",
	"no sinks = hex:compact:sink=0:recent=128",
	"16 sinks = hex:compact:sink=16:recent=112",
	"mean of 64 rows = hex:compact:mean=64",
	"mean of 1024 rows = hex:compact:mean=1024",
}

// degrees: a backbone that takes its slots from the heavy hitters, so the bytes are those of compact or a little less. The factor is
// that of the certificate, RATIONALE.md: 1 is a Ramanujan graph, strided the poorest.
var degrees = []string{
	"none = hex:compact",
	slots("degree 1", "compact", 128, 153, ":backbone=0.0111"),
	slots("degree 2", "compact", 128, 131, ":backbone=0.0222"),
	slots("degree 3", "compact", 128, 108, backbone(2, "expander")),
	slots("degree 6", "compact", 128, 40, backbone(4, "expander")),
	slots("degree 6, random", "compact", 128, 40, backbone(4, "random")),
	slots("degree 6, strided (factor 2.06)", "compact", 128, 40, backbone(4, "strided")),
}

// recalled: contexts are of about 1,024 tokens, so a backbone of degree 3 is 34 of 88 heavy hitters.
var recalled = []string{
	"q8_0", "q4_0", "hex:tiny", "hex:compact", "hex:balanced",
	"tiny, expander for 34 of the heavy = hex:tiny:backbone=0.0333:heavy=0.0527",
	"tiny, random for 34 of the heavy = hex:tiny:backbone=0.0333:heavy=0.0527:backbone_kind=random",
	"tiny, expander for 68 of the heavy = hex:tiny:backbone=0.0666:heavy=0.0195",
	"tiny, no heavy, 152 recent = hex:tiny:heavy=0:recent=148",
}

// flags of hexrun, with these files; a file of RULER that x names lies in the folder ruler.
func (x experiment) flags(model, text, grid, ruler string) []string {
	args := []string{"eval", x.eval, "-m", model}
	if x.eval != "recall" { // which hides its facts in a text of its own
		args = append(args, "-f", text)
	}
	for _, a := range x.args {
		if strings.HasSuffix(a, ".jsonl") {
			a = filepath.Join(ruler, a)
		}
		args = append(args, a)
	}
	return append(args, "--grid", grid)
}

// short is the same without files, for people.
func (x experiment) short() string {
	return "hexrun eval " + x.eval + " " + strings.Join(x.args, " ")
}
