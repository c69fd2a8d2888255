// The tests launch the packaged Chromium or the user's own Chrome; nothing is downloaded.
module.exports = { skipDownload: true };
