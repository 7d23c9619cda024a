package main

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
)

// TestPresetQuality fails when a preset's bytes change, or its KL divergence by more than the interval of what was measured before.
// To measure again, when a preset is meant to change:
//
//	build/bin/hexrun eval kld -c 768 --caches hex:tiny,hex:compact,hex:balanced,hex:quality -o json > cmd/hexrun/testdata/presets.json
func TestPresetQuality(t *testing.T) {
	needModel(t)
	data, err := os.ReadFile("testdata/presets.json")
	require.NoError(t, err)
	var before []report.EvalRow
	require.NoError(t, json.Unmarshal(data, &before))
	require.Len(t, before, 5)
	rows, _, _ := evalRows(t, "-c", "768", "--caches", "hex:tiny,hex:compact,hex:balanced,hex:quality", "--lockstep", "5")
	require.Len(t, rows, len(before))
	for i, was := range before {
		now := rows[i]
		assert.Equal(t, was.Cache, now.Cache)
		assert.Equal(t, was.KVBytes, now.KVBytes, was.Cache)
		assert.Equal(t, was.RefinedCells, now.RefinedCells, was.Cache)
		require.NotNil(t, was.KLDMeanLo, was.Cache)
		assert.GreaterOrEqual(t, now.KLDMean, *was.KLDMeanLo, "%s is better than it was: measure again", was.Cache)
		assert.LessOrEqual(t, now.KLDMean, *was.KLDMeanHi, was.Cache)
	}
}
