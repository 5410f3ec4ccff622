<#
.SYNOPSIS
outbox のファイルを送り、届いたファイルを inbox に受け取ります。 Windows の OpenSSH だけを使います。
Send what lies in outbox, fetch what has arrived into inbox; with the OpenSSH client that Windows ships.

.DESCRIPTION
    powershell.exe -NoProfile -ExecutionPolicy Bypass -File sync-windows.ps1 -Folder C:\careplan [-Config FILE] [-HostName NAME]

The configuration is the one that `enroll` has written (careplan-relay\config below your own folder unless told otherwise).

In the folder:
    outbox     put files here, whole: move them in. outbox\OFFICE is for a file whose own name does not say a recipient
    sent       what the relay holds: its status file shows name and SHA-256 of just these bytes
    refused    what the relay refused, and beside each file why, and what to do
    inbox      what was sent to you: whole or not at all, and once; you may take it away at once

It may be interrupted or ended at any moment and run again: nothing is lost, nothing comes or goes twice, nothing that exists is
overwritten. Exit codes: 0 all is done; 1 something was refused; 2 wrong command; 3 something is left for the next run.

Written for Windows PowerShell 5.1 and OpenSSH for Windows 8.1 or newer. NOT RUN by its authors: they had no Windows. Its
steps are those of sync-openssh.sh, which is tested; its grammar was checked by a parser. Try it with one file first.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)] [string] $Folder,
    [string] $Config = (Join-Path $env:USERPROFILE 'careplan-relay\config'),
    [string] $HostName = 'careplan-relay',
    [string] $Sftp = 'sftp.exe'
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

# Files in one session: after each session what it did is settled.
$Most = 500
# A whole file can look as if it were cut off; the relay takes it the second time.
$Tries = 2
# What may be taken later stays in outbox.
$Later = '^(server|office|upload)\.|^limit\.(quota|partials|rate|handles)$'
# sftp reads and the relay writes UTF-8 without a mark at the beginning.
$Utf8 = New-Object System.Text.UTF8Encoding($false)

$script:Sent = 0
$script:Refused = 0
$script:Fetched = 0
$script:Left = 0

function Get-Digest([string] $Path) {
    (Get-FileHash -LiteralPath $Path -Algorithm SHA256).Hash.ToLowerInvariant()
}

# Run one session that does these lines; one that begins with - may fail. True where it came to its end.
function Invoke-Sftp([string[]] $Lines) {
    $batch = Join-Path $Run 'todo'
    [IO.File]::WriteAllText($batch, (($Lines -join "`n") + "`n"), $Utf8)
    Push-Location -LiteralPath $Run
    # What a program writes to its error stream would otherwise end this script.
    $ErrorActionPreference = 'Continue'
    try {
        & $Sftp -q -F $Config -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 `
            -b todo $HostName > said 2> complaints
        return ($LASTEXITCODE -eq 0)
    } finally {
        Pop-Location
    }
}

# The rows of a status file: JSON, a row a line. One by one, because 5.1 takes no more than 2 MB at once.
function Get-Status([string] $Topic) {
    $file = Join-Path $Run "$Topic.json"
    if (Test-Path -LiteralPath $file) { Remove-Item -LiteralPath $file -Force }
    $isWhole = Invoke-Sftp @("get status/$Topic.json $Topic.json")
    $lines = @()
    if ($isWhole -and (Test-Path -LiteralPath $file)) { $lines = [IO.File]::ReadAllLines($file, $Utf8) }
    if ($lines.Count -eq 0 -or $lines[$lines.Count - 1] -ne ']}') {
        Get-Content -LiteralPath (Join-Path $Run 'complaints') -ErrorAction SilentlyContinue | ForEach-Object { Write-Warning $_ }
        throw 'サーバーと通信できません。続きは次回に行います。 / The relay cannot be reached; the next run goes on.'
    }
    foreach ($line in $lines) {
        if ($line.Contains('"name": ')) { ConvertFrom-Json -InputObject $line.TrimEnd(',') }
    }
}

function Get-Quoted([string] $Path) {
    '"' + $Path + '"'
}

# Move a file to a folder, under another name where something else has that one.
function Move-Into([string] $From, [string] $To, [string] $Name, [string] $Mark) {
    [void] [IO.Directory]::CreateDirectory($To)
    $target = Join-Path $To $Name
    if ([IO.File]::Exists($target)) {
        if ((Get-Digest $target) -eq (Get-Digest $From)) {
            [IO.File]::Delete($From)
            return
        }
        $target = Join-Path $To ($Mark + '_' + $Name)
        if ([IO.File]::Exists($target)) { [IO.File]::Delete($target) }
    }
    [IO.File]::Move($From, $target)
}

# --- sending ---------------------------------------------------------------------------------------------------------

function Get-Outbox {
    $outbox = Join-Path $Root 'outbox'
    $folders = @($outbox) + @([IO.Directory]::GetDirectories($outbox))
    foreach ($place in $folders) {
        $office = ''
        if ($place -ne $outbox) { $office = [IO.Path]::GetFileName($place) }
        foreach ($path in [IO.Directory]::GetFiles($place)) {
            $name = [IO.Path]::GetFileName($path)
            # Another program still writes these.
            if ($name -match '\.(tmp|part|partial|filepart)$' -or $name.StartsWith('~$') -or $name.StartsWith('.')) { continue }
            if (([IO.File]::GetAttributes($path) -band [IO.FileAttributes]::Hidden) -ne 0) { continue }
            New-Object PSObject -Property @{ Office = $office; Name = $name; Path = $path; Key = "$office/$name" }
        }
    }
}

function Get-Place([string] $Box, [string] $Office) {
    $place = Join-Path $Root $Box
    if ($Office) { $place = Join-Path $place $Office }
    return $place
}

# Move to sent what the relay holds with just these bytes. What was taken back, or ran out, does not count.
function Complete-Sent($Files) {
    $held = @{}
    foreach ($row in (Get-Status 'sent')) {
        if (@('accepted', 'collected', 'destroyed') -notcontains $row.state) { continue }
        $held[$row.name.ToUpperInvariant() + '/' + $row.sha256] += @($row)
    }
    foreach ($file in $Files) {
        if (-not [IO.File]::Exists($file.Path)) { continue }
        $key = $file.Name.Normalize().ToUpperInvariant() + '/' + (Get-Digest $file.Path)
        if (-not $held.ContainsKey($key)) { continue }
        foreach ($row in $held[$key]) {
            if ($file.Office -and $file.Office -ne $row.recipient) { continue }
            Move-Into $file.Path (Get-Place 'sent' $file.Office) $file.Name ([string] $row.number)
            $script:Sent++
            break
        }
    }
}

# Move to refused what was refused just now for good: a row that is new or counts on was not there before the session.
function Complete-Refused($Files, $Before) {
    $known = @{}
    foreach ($row in $Before) { $known["$($row.name)/$($row.code)/$($row.last_at)/$($row.count)"] = $true }
    $after = @(Get-Status 'refused')
    foreach ($file in $Files) {
        if (-not [IO.File]::Exists($file.Path)) { continue }
        foreach ($row in $after) {
            if ($row.name -ne $file.Name.Normalize() -or $row.code -match $Later) { continue }
            if ($known.ContainsKey("$($row.name)/$($row.code)/$($row.last_at)/$($row.count)")) { continue }
            $reason = @($row.message_ja, $row.remedy_ja, $row.message_en, $row.remedy_en, $row.code) -join "`r`n"
            $mark = (Get-Date).ToString('yyyyMMddHHmmss')
            $draft = Join-Path $Run 'reason'
            # With a mark, so that Notepad of Windows 10 reads it as UTF-8. The reason first: it is there when the file is.
            [IO.File]::WriteAllText($draft, "$reason`r`n", [Text.Encoding]::UTF8)
            Move-Into $draft (Get-Place 'refused' $file.Office) ($file.Name + '.reason.txt') $mark
            Move-Into $file.Path (Get-Place 'refused' $file.Office) $file.Name $mark
            $script:Refused++
            break
        }
    }
    return , $after
}

function Send-All {
    $files = @(Get-Outbox)
    if ($files.Count -eq 0) { return }
    # What an earlier run has sent and could not settle is not sent again.
    Complete-Sent $files
    $refused = @(Get-Status 'refused')
    $tried = @{}
    while ($true) {
        $chosen = @()
        # One name once a session: a refusal is told by its name alone.
        $names = @{}
        foreach ($file in @(Get-Outbox)) {
            if ($chosen.Count -ge $Most -or $names.ContainsKey($file.Name)) { continue }
            if ($tried.ContainsKey($file.Key) -and $tried[$file.Key] -ge $Tries) { continue }
            $names[$file.Name] = $true
            $tried[$file.Key] = 1 + [int] $tried[$file.Key]
            $chosen += $file
        }
        if ($chosen.Count -eq 0) { return }
        $lines = foreach ($file in $chosen) {
            $remote = 'send/' + $file.Name
            if ($file.Office) { $remote = 'send/' + $file.Office + '/' + $file.Name }
            '-put ' + (Get-Quoted ($file.Path -replace '\\', '/')) + ' ' + (Get-Quoted $remote)
        }
        # A lost connection shows in what the status then says.
        [void] (Invoke-Sftp $lines)
        Complete-Sent $chosen
        $refused = Complete-Refused $chosen $refused
    }
}

# --- fetching --------------------------------------------------------------------------------------------------------

function Read-List([string] $Name) {
    $file = Join-Path $State $Name
    $known = @{}
    if ([IO.File]::Exists($file)) {
        foreach ($line in [IO.File]::ReadAllLines($file, $Utf8)) { $known[$line] = $true }
    }
    return $known
}

# Write a list, whole or not at all, and onto the disk.
function Write-List([string] $Name, $Known) {
    $file = Join-Path $State $Name
    $draft = "$file.new"
    [IO.File]::WriteAllText($draft, ((@($Known.Keys) -join "`n") + "`n"), $Utf8)
    Save-ToDisk $draft
    if ([IO.File]::Exists($file)) { [IO.File]::Replace($draft, $file, $null) } else { [IO.File]::Move($draft, $file) }
}

function Save-ToDisk([string] $Path) {
    $stream = New-Object IO.FileStream($Path, [IO.FileMode]::Open, [IO.FileAccess]::ReadWrite)
    try { $stream.Flush($true) } finally { $stream.Dispose() }
}

# Give inbox what lies in whole: noted first, then given in one step. After an end in between it is still in whole.
function Publish-Whole {
    $whole = Join-Path $State 'whole'
    foreach ($box in [IO.Directory]::GetDirectories($whole)) {
        $key = [IO.Path]::GetFileName($box)
        foreach ($path in [IO.Directory]::GetFiles($box)) {
            $delivered = Read-List 'delivered'
            if (-not $delivered.ContainsKey($key)) {
                $delivered[$key] = $true
                Write-List 'delivered' $delivered
            }
            Move-Into $path (Join-Path $Root 'inbox') ([IO.Path]::GetFileName($path)) ($key.Split('-')[0])
            $script:Fetched++
        }
        [IO.Directory]::Delete($box)
    }
}

# The relay says what is there and with which SHA-256. `fetching` names what was begun: a file leaves new/ as soon as it was
# read, which may be a moment before this computer has it. `delivered` names what inbox was given.
function Receive-All {
    for ($pass = 0; $pass -lt 1000; $pass++) {
        $fetching = Read-List 'fetching'
        $delivered = Read-List 'delivered'
        $stays = @{}
        $wanted = @()
        foreach ($row in (Get-Status 'received')) {
            if ($row.is_removed -or @('accepted', 'collected') -notcontains $row.state) { continue }
            $key = "$($row.number)-$($row.sha256)"
            $stays[$key] = $true
            if ($wanted.Count -lt $Most -and ($row.state -eq 'accepted' -or $fetching.ContainsKey($key))) {
                Add-Member -InputObject $row -MemberType NoteProperty -Name key -Value $key
                $wanted += $row
            }
        }
        foreach ($key in @($delivered.Keys)) { if (-not $stays.ContainsKey($key)) { $delivered.Remove($key) } }
        Write-List 'delivered' $delivered
        $kept = @{}
        foreach ($key in @($fetching.Keys)) { if ($stays.ContainsKey($key)) { $kept[$key] = $true } }
        foreach ($row in $wanted) { $kept[$row.key] = $true }
        Write-List 'fetching' $kept
        if ($wanted.Count -eq 0) { return }
        # Twice is enough for each where nothing is in the way.
        if ($pass -gt 3 + $stays.Count / $Most) {
            $script:Left += $wanted.Count
            return
        }
        Receive-Batch $wanted $delivered
        Publish-Whole
        Clear-Batch $wanted
    }
}

function Receive-Batch($Wanted, $Delivered) {
    $lines = foreach ($row in $Wanted) {
        # It is here already. It has to be read once more where the relay does not know that it was.
        if ($Delivered.ContainsKey($row.key) -and $row.state -eq 'collected') { continue }
        '-get ' + (Get-Quoted ('receive/' + $row.name)) + " part/$($row.number)"
    }
    if ($lines) { [void] (Invoke-Sftp @($lines)) }
    foreach ($row in $Wanted) {
        $part = Join-Path $Run "part\$($row.number)"
        if (-not [IO.File]::Exists($part)) { continue }
        if (-not $Delivered.ContainsKey($row.key) -and (Get-Digest $part) -eq $row.sha256) {
            Save-ToDisk $part
            $box = Join-Path $State "whole\$($row.key)"
            [void] [IO.Directory]::CreateDirectory($box)
            Move-Into $part $box $row.name 'again'
        } else {
            [IO.File]::Delete($part)
        }
    }
}

# Tell the relay that this computer has what it has: only then does it leave receive/.
function Clear-Batch($Wanted) {
    $delivered = Read-List 'delivered'
    $lines = foreach ($row in $Wanted) {
        if ($delivered.ContainsKey($row.key)) {
            '-rename ' + (Get-Quoted ('receive/' + $row.name)) + ' ' + (Get-Quoted ('done/' + $row.name))
        }
    }
    if ($lines) { [void] (Invoke-Sftp @($lines)) }
}

# --- one run ---------------------------------------------------------------------------------------------------------

if (-not (Test-Path -LiteralPath $Config)) {
    Write-Warning "設定ファイルがありません / there is no configuration: $Config"
    exit 2
}
$Config = (Resolve-Path -LiteralPath $Config).ProviderPath
[void] [IO.Directory]::CreateDirectory($Folder)
$Root = (Resolve-Path -LiteralPath $Folder).ProviderPath
$State = Join-Path $Root '.careplan-relay'
foreach ($box in 'outbox', 'sent', 'refused', 'inbox', '.careplan-relay\whole') {
    [void] [IO.Directory]::CreateDirectory((Join-Path $Root $box))
}

# One at a time: the system takes the lock away with the process, however it ends.
$lock = $null
try {
    $lock = [IO.File]::Open((Join-Path $State 'lock'), [IO.FileMode]::OpenOrCreate, [IO.FileAccess]::ReadWrite, [IO.FileShare]::None)
} catch [IO.IOException] {
    Write-Warning 'ほかの同期が動いています / another run is at work'
    exit 3
}
# A run that was ended may have left an sftp that still works: it keeps its own folder, which goes when it has ended.
foreach ($old in [IO.Directory]::GetDirectories($State, 'run.*')) {
    Remove-Item -LiteralPath $old -Recurse -Force -ErrorAction SilentlyContinue
}
$Run = Join-Path $State ('run.' + [Guid]::NewGuid().ToString('N'))
[void] [IO.Directory]::CreateDirectory((Join-Path $Run 'part'))
try {
    Publish-Whole
    Send-All
    Receive-All
} catch {
    Write-Warning $_.Exception.Message
    $script:Left++
} finally {
    Remove-Item -LiteralPath $Run -Recurse -Force -ErrorAction SilentlyContinue
    $lock.Dispose()
}
$script:Left += @(Get-Outbox).Count
Write-Output "sent $script:Sent, refused $script:Refused, fetched $script:Fetched, left $script:Left"
Write-Output "送信 $script:Sent 件、受付拒否 $script:Refused 件、受信 $script:Fetched 件、残り $script:Left 件"
if ($script:Left -gt 0) { exit 3 }
if ($script:Refused -gt 0) { exit 1 }
exit 0
