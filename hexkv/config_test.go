package hexkv

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/binding"
)

func TestParseConfig(t *testing.T) {
	for spec, want := range map[string]Config{
		"f16":                         CacheF16,
		"q8_0":                        CacheQ8_0,
		"q8_0/q4_0":                   {TypeK: "q8_0", TypeV: "q4_0"},
		"hex3/hex2":                   {TypeK: "hex3", TypeV: "hex2"},
		"hex:off":                     {Preset: "off"},
		"hex:balanced":                CacheBalanced,
		"hex:tiny:recent=-1:sink=0":   {Preset: "tiny", Recent: Ptr(-1), Sink: Ptr(0)},
		"hex:tiny:heavy=0.1:seed=7":   {Preset: "tiny", Heavy: Ptr(0.1), Seed: Ptr(uint32(7))},
		"hex:paper:backbone_kind=log": {Preset: "paper", BackboneKind: "log"},
		"hex:tiny:type_k=hex3:refine=f16:mean=0:half_life=9:backbone=0.25": {Preset: "tiny", TypeK: "hex3", Refine: "f16",
			Mean: Ptr(0), HalfLife: Ptr(9), Backbone: Ptr(0.25)},
	} {
		got, err := ParseConfig(spec)
		require.NoError(t, err, spec)
		assert.Equal(t, want, got, spec)
		assert.NoError(t, got.Validate(), spec)

		again, err := ParseConfig(got.String())
		require.NoError(t, err, got.String())
		assert.Equal(t, got, again, "%s became %s", spec, got)
	}
	assert.Equal(t, "f16", Config{}.String())
	assert.Equal(t, "q8_0/f16", Config{TypeK: "q8_0"}.String())
	assert.Equal(t, "hex:balanced", CacheBalanced.String())
}

// A C program that zeroes its structs and names a preset means the preset.
func TestZeroedCache(t *testing.T) {
	assert.True(t, binding.CheckCache(&binding.Cache{Preset: "balanced"}).OK())
	spec, s := binding.FormatCache(&binding.Cache{Preset: "balanced", TypeV: "hex3"})
	require.True(t, s.OK())
	assert.Equal(t, "hex:balanced:type_v=hex3", spec)
	assert.False(t, binding.CheckCache(&binding.Cache{Preset: "balanced", Sink: 4}).OK(), "half_life 0 is no default here")
	assert.False(t, binding.CheckCache(&binding.Cache{Preset: "huge"}).OK())
}

// Each bad configuration gets a sentence that names what is wrong.
func TestInvalidConfig(t *testing.T) {
	for spec, part := range map[string]string{
		"":                             "cache ''",
		"f17":                          "f17",
		"q8_0/":                        "q8_0/",
		"hex":                          "preset",
		"hex:huge":                     "'huge' is unknown; use one of off, tiny, compact, balanced, quality, paper",
		"hex:off:heavy=0.1":            "heavy is set but HEX is off",
		"f16:sink=4":                   "sink is set but HEX is off",
		"hex:balanced:type_k=q8_0":     "preset balanced stores K in hex1 to hex4, but its cache type is set to q8_0",
		"hex:tiny:heavy=1.5":           "0..1",
		"hex:tiny:heavy=nan":           "nan",
		"hex:tiny:sink=x":              "sink",
		"hex:tiny:sink=-3":             "n_sink = -3",
		"hex:tiny:sink=99999999999":    "sink",
		"hex:tiny:sink=1:sink=2":       "twice",
		"hex:tiny:colour=blue":         "'colour' is unknown",
		"hex:tiny:refine=q4_0":         "refine 'q4_0' is unknown",
		"hex:tiny:refine=none:heavy=1": "refine is none",
		"hex:tiny:seed=4294967296":     "seed",
		"hex:tiny\x00:heavy=2":         "NUL",
		strings.Repeat("x", 5000):      "400 bytes",
	} {
		_, err := ParseConfig(spec)
		require.ErrorIs(t, err, ErrInvalidConfig, spec)
		assert.Contains(t, err.Error(), part, spec)
		assert.NotErrorIs(t, err, ErrMemory)
	}
	for part, c := range map[string]Config{
		"Sink = -1":                    {Preset: "tiny", Sink: Ptr(-1)},
		"Recent = -2":                  {Preset: "tiny", Recent: Ptr(-2)},
		"HalfLife = 0":                 {Preset: "tiny", HalfLife: Ptr(0)},
		"Heavy = 2":                    {Preset: "tiny", Heavy: Ptr(2.0)},
		"Backbone = NaN":               {Preset: "tiny", Backbone: Ptr(math.NaN())},
		"preset balanced stores V":     {Preset: "balanced", TypeV: "q8_0"},
		"'averylongtyp...' is unknown": {TypeK: "averylongtypename"},
		"'ti...'":                      {Preset: "ti\x00ny"},
	} {
		err := c.Validate()
		require.ErrorIs(t, err, ErrInvalidConfig, part)
		if !strings.Contains(part, "...") {
			assert.Contains(t, err.Error(), part)
		}
	}
}

func TestPresets(t *testing.T) {
	all := Presets()
	require.NotEmpty(t, all)
	assert.Equal(t, "off", all[0])
	assert.Contains(t, all, "balanced")
	for _, name := range all {
		c := Config{Preset: name}
		assert.NoError(t, c.Validate(), name)
		assert.Equal(t, name != "off", c.IsHEX())
		assert.Equal(t, "hex:"+name, c.String())
	}
	for _, c := range []Config{CacheQuality, CacheBalanced, CacheCompact, CacheTiny, CachePaper, CacheF16, CacheQ8_0, CacheQ4_0} {
		assert.NoError(t, c.Validate())
	}
}

func TestSamplingValidate(t *testing.T) {
	assert.NoError(t, Sampling{}.Validate())
	assert.NoError(t, DefaultSampling().Validate())
	for part, o := range map[string]Sampling{
		"Temperature = -1":     {Temperature: -1},
		"Temperature = NaN":    {Temperature: float32(math.NaN())},
		"TopP = 1.5":           {TopP: 1.5},
		"MinP = 2":             {MinP: 2},
		"TopK = -4":            {TopK: -4},
		"RepeatPenalty = -1":   {RepeatPenalty: -1},
		"PenaltyLastN = -1":    {PenaltyLastN: -1},
		"FrequencyPenalty = ":  {FrequencyPenalty: 1000},
		"PresencePenalty = +I": {PresencePenalty: float32(math.Inf(1))},
	} {
		err := o.Validate()
		require.ErrorIs(t, err, ErrInvalidConfig, part)
		assert.Contains(t, err.Error(), strings.TrimSuffix(part, "+I"))
		assert.Contains(t, err.Error(), "use ")
	}
}
